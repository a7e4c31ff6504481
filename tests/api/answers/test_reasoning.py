"""Thoughts told apart from content, whatever pieces the text comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.reasoning import (
    TAGS,
    ReasoningSplitter,
    held_back,
    is_opened,
    tags_of,
    without_thoughts,
)

THINK = TAGS[0]
CASES = [  # text, the prompt opened thoughts, thoughts, content
    ("<think>\nWell, 2 < 3.\n</think>\n\nYes.", False, "Well, 2 < 3.", "Yes."),
    ("\n <think>a</think>b", False, "a", "b"),
    ("Well.\n</think>\nYes.\n", True, "Well.", "Yes.\n"),
    ("still at it \n", True, "still at it", ""),
    ("<think>\n\n</think>\n\nYes.", False, "", "Yes."),
    ("Yes, <think> is a tag.</think>", False, "", "Yes, <think> is a tag.</think>"),
    ("<thinking>no</thinking>", False, "", "<thinking>no</thinking>"),
    ("<thi", False, "", "<thi"),
    ("a </thi</think>b</think>", True, "a </thi", "b</think>"),
    ("  plain", False, "", "  plain"),
    ("", False, "", ""),
]


def split(pieces: list[str], *, is_open: bool) -> tuple[str, str]:
    splitter = ReasoningSplitter(THINK, is_open=is_open)
    found = [part for piece in pieces for part in splitter.push(piece)] + splitter.flush()
    assert all(text for _, text in found)
    return tuple("".join(t for is_thought, t in found if is_thought is k) for k in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(("text", "is_open", "thoughts", "content"), CASES)
def test_thoughts_and_content(text: str, is_open: bool, thoughts: str, content: str) -> None:
    assert split([text], is_open=is_open) == (thoughts, content)
    assert split(list(text), is_open=is_open) == (thoughts, content)


@given(
    pieces=st.lists(
        st.sampled_from(["<think>", "</think>", "<", "think", ">", "/", "\n", " ", "a", "</thi"])
    ),
    is_open=st.booleans(),
)
def test_cuts_make_no_difference(pieces: list[str], is_open: bool) -> None:
    whole = split(["".join(pieces)], is_open=is_open)
    assert split(pieces, is_open=is_open) == whole
    assert split(list("".join(pieces)), is_open=is_open) == whole


def test_a_prompt_may_open_thoughts_and_they_can_be_closed() -> None:
    assert is_opened("<|assistant|><think>\n", THINK)
    assert not is_opened("<think>\n\n</think>\n\n", THINK)
    closed = without_thoughts("<|assistant|><think>\n", THINK)
    assert closed == "<|assistant|><think>\n\n</think>\n\n"
    assert without_thoughts("<|assistant|>", THINK) == "<|assistant|>"


def test_templates_tell_the_tags() -> None:
    assert tags_of("{{ '<think>' }}") is THINK
    assert tags_of("{% if '</think>' in content %}") is THINK
    assert tags_of("[THINK]{{ x }}[/THINK]") is TAGS[1]
    assert tags_of("{{ messages }}") is None
    assert tags_of("{{ message.content }}<|end|>") is None  # Phi's end of a turn, too


def test_the_longest_possible_beginning_of_a_mark_is_held_back() -> None:
    assert held_back("caa", "aab") == 2
    assert held_back("aab", "aab") == held_back("ba", "b") == held_back("", "ab") == 0
