"""The generators of the training text: seeded, well formed, and right where that can be checked."""

from __future__ import annotations

import random
import re

import pytest

from examples.demo_model.data import phrasing
from examples.demo_model.data.conversations import BRIEF_SYSTEMS, Writer
from examples.demo_model.data.dialogue import SPECIALS, Document, Message, Segment, segments
from examples.demo_model.data.stop_prompts import N_PROMPTS, stop_conversations
from examples.demo_model.data.stories import HEROES, article, story, story_exchange
from examples.demo_model.data.sums import sum_exchange
from examples.demo_model.data.world import world_exchange


def test_the_seed_decides_every_document() -> None:
    assert list(Writer(3).documents(300)) == list(Writer(3).documents(300))
    assert list(Writer(3).documents(300)) != list(Writer(4).documents(300))


def test_dialogues_alternate_and_end_with_an_answer() -> None:
    for document in Writer(5).documents(2000):
        roles = [message.role for message in document.messages]
        if not roles:
            assert document.text
            continue
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert all(message.content for message in document.messages)
        assert not any(s in m.content for s in SPECIALS for m in document.messages)


def test_phrasings_are_many_and_no_slot_is_left_open() -> None:
    writer, rng = Writer(6), random.Random(6)
    for fact in writer.dllama:
        asked = {phrasing.ask(rng, fact) for _ in range(60)}
        assert len(asked) > 40, fact.id
        assert not any(re.search(r"[{}](do|what|via)|\|\]", text) for text in asked), fact.id


def test_slots_are_filled_from_the_inside() -> None:
    rng = random.Random(0)
    found = {phrasing.expand(rng, "a [b|c [d|e]] [|f]") for _ in range(200)}
    assert found == {f"a {x}{y}" for x in ("b", "c d", "c e") for y in ("", " f")}


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("start a worker", "starting a worker"), ("use", "using"), ("see it", "seeing it"),
        ("run two workers", "running two workers"), ("limit the batch", "limiting the batch"),
    ],
)  # fmt: skip
def test_gerunds(phrase: str, expected: str) -> None:
    assert phrasing.gerund(phrase) == expected


def test_synonyms_leave_flags_and_names_alone() -> None:
    rng = random.Random(1)
    text = "what does dllama run do with --model and `start` on /stats and make test"
    for _ in range(100):
        swapped = phrasing.with_synonyms(rng, text, 1.0)
        for kept in ("dllama run", "--model", "`start`", "/stats", "make test"):
            assert kept in swapped


def test_sums_are_right() -> None:
    rng = random.Random(7)
    n_checked = 0
    for _ in range(500):
        if found := re.fullmatch(r"(\d+) ([-+*]) (\d+) = (\d+)\.", sum_exchange(rng).says):
            a, sign, b, result = found.groups()
            x, y = int(a), int(b)
            assert {"+": x + y, "-": x - y, "*": x * y}[sign] == int(result)
            n_checked += 1
    assert n_checked > 200


def test_facts_about_the_world_have_questions_and_answers() -> None:
    rng = random.Random(8)
    for _ in range(500):
        exchange = world_exchange(rng)
        assert exchange.asked and exchange.says.endswith(".") and "{" not in exchange.asked


def test_stories_are_about_whom_was_asked_for() -> None:
    rng = random.Random(9)
    for hero in HEROES:
        assert hero in story(rng, hero).partition(" called ")[0]
    for _ in range(300):
        exchange = story_exchange(rng)
        assert "{" not in exchange.says
        for hero in HEROES:
            if exchange.asked.endswith(f" {article(hero)}"):
                assert hero in exchange.says.partition(" called ")[0]


def test_brief_systems_get_brief_answers() -> None:
    shorter = longer = 0
    for document in Writer(10).documents(3000):
        if not document.messages:
            continue
        is_brief = document.messages[0].content in BRIEF_SYSTEMS
        lengths = [len(m.content) for m in document.messages if m.role == "assistant"]
        shorter += is_brief and max(lengths) < 80
        longer += (not is_brief) and max(lengths) >= 80
    assert shorter > 100 and longer > 500


def test_segments_mark_what_the_model_writes() -> None:
    document = Document((Message("user", "hi", "talk.hello"), Message("assistant", "Hello!")))
    assert segments(document) == [
        Segment("<|im_start|>user\nhi<|im_end|>\n", False, "talk.hello"),
        Segment("<|im_start|>assistant\n", False, "talk.hello"),
        Segment("Hello!<|im_end|>", True),
        Segment("\n", False),
    ]
    assert segments(Document(text="Once")) == [Segment("Once<|endoftext|>", True)]


def test_stop_prompts_are_fixed_and_varied() -> None:
    conversations = stop_conversations()
    assert conversations == stop_conversations()
    assert len(conversations) == N_PROMPTS
    assert len({str(c) for c in conversations}) > 190
    assert all(c[-1]["role"] == "user" and c[-1]["content"] for c in conversations)
