"""Whatever is lost, and whenever: every client hears what it would have heard without it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.engines.open_sequence import INNOCENCE, MAX_DEATHS
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.constraints import token_budget
from dllama.constraints.grammars import GrammarKind, json_part, source_part, whole_answer
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.engine.engine import Engine
from dllama.engine.speculative.model_drafter import DraftModel
from dllama.formats.gguf import GgufFile
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.runner import Runner
from dllama.runtime.local_runner import LocalRunner
from dllama.tokenizer import Tokenizer
from tests.dllama.engine.days import prompt
from tests.dllama.engine.history_runner import HistoryRunner, expected_answer
from tests.dllama.engine.lives import Fault, Told, live
from tests.local_model import local_runner

WARM = SamplingParams(temperature=1.0, top_k=20, seed=3)
SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "warm": WARM,
    "log-probabilities": replace(WARM, n_probs=3),
    "penalties": replace(WARM, repeat_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3,
                         repeat_last_n=-1),
    "dry": replace(WARM, top_k=3, dry_multiplier=2.0, dry_allowed_length=1, dry_breakers=[5]),
    "xtc": replace(WARM, xtc_probability=0.5, xtc_threshold=0.05),
    "mirostat 1": replace(WARM, top_k=0, mirostat=1, mirostat_tau=3.0, mirostat_eta=0.5),
    "mirostat 2": replace(WARM, top_k=0, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.5),
}  # fmt: skip
DEATHS = (Fault.DEATH, Fault.LATE_DEATH)
FAULTS = st.dictionaries(st.integers(0, 70), st.sampled_from(list(Fault)), max_size=6).filter(
    lambda faults: sum(fault in DEATHS for fault in faults.values()) < MAX_DEATHS
)


def requests() -> list[Submit]:
    """One of every kind: samplings, long prompts, sessions, shifts, texts to embed."""
    made = [
        Submit(name, prompt(4 + 17 * i, 3), params, max_tokens=20 + i)
        for i, (name, params) in enumerate(SAMPLINGS.items())
    ]
    made += [
        Submit("rolls", prompt(100, 5), WARM, max_tokens=90, context_shift=True, n_keep=7),
        Submit("repeats", [1, 2, 3, 4] * 9, SAMPLINGS["greedy"], max_tokens=30, session_id="s"),
        Submit("alone", prompt(50), WARM, max_tokens=9, cache_prompt=False, wants_progress=True),
        Submit("mean", prompt(70), pooling="mean", cache_prompt=False),
        Submit("none", prompt(40), pooling="none", cache_prompt=False),
        Submit("bad", [5000]),
        Submit("stops", prompt(9), WARM, stop_ids=list(range(0, 97, 9))),
    ]
    return made


def forget_history(runner: Runner) -> None:
    assert isinstance(runner, HistoryRunner)
    runner.lose()
    runner.is_lost = False


def history() -> HistoryRunner:
    return HistoryRunner(n_pages=14, max_seq_len=128)


def plain(runner: Runner, speculate: int = 0) -> Engine:
    return Engine(runner, max_batch=5, max_step_tokens=40, speculate=speculate)


@cache
def undisturbed() -> dict[str, Told]:
    return live(history(), forget_history, plain, requests(), {})


def test_the_undisturbed_world_is_the_models() -> None:
    runner = history()
    for submit in requests():
        told = undisturbed()[submit.id]
        if submit.pooling is None and submit.id != "bad":
            answer = expected_answer(submit, runner.config, runner.n_pages)
            assert (told.tokens, told.finish) == (answer.tokens, answer.finish)


@settings(max_examples=30, deadline=None)
@given(faults=FAULTS, speculate=st.sampled_from([0, 4]))
def test_every_answer_is_the_undisturbed_one(faults: dict[int, Fault], speculate: int) -> None:
    engine = partial(plain, speculate=speculate)
    assert live(history(), forget_history, engine, requests(), faults) == undisturbed()


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_every_step(fault: Fault) -> None:
    """Of two sequences, one of which rolls, one after the other."""
    submits = [s for s in requests() if s.id in ("rolls", "mirostat 2")]
    for i in range(0, 100, 5):
        told = live(history(), forget_history, plain, submits, {i: fault, i + 2: fault})
        assert told == {s.id: undisturbed()[s.id] for s in submits}


@pytest.mark.parametrize("fault", Fault)
def test_faults_for_ever_end_nothing_where_tokens_come_in_between(fault: Fault) -> None:
    """Every third step has one; a prompt takes one step."""
    submits = [s for s in requests() if s.id in ("greedy", "dry", "xtc")]
    told = live(history(), forget_history, Engine, submits, dict.fromkeys(range(2, 900, 3), fault))
    assert told == {s.id: undisturbed()[s.id] for s in submits}


def test_a_request_that_ends_three_engines_is_told_so() -> None:
    submits = [s for s in requests() if s.id == "warm"]
    told = live(history(), forget_history, plain, submits, dict.fromkeys(range(3), Fault.DEATH))
    assert "3 times in a row" in told["warm"].error


def test_one_that_never_gets_a_token_while_others_do_is_told_so_in_the_end() -> None:
    """Its prompt takes longer than any engine lives."""
    submits = [Submit("a", [1], WARM, max_tokens=60), Submit("long", prompt(400), WARM)]
    faults = dict.fromkeys(range(4, 900, 5), Fault.DEATH)
    small = partial(Engine, max_batch=2, max_step_tokens=60)
    runner = HistoryRunner(n_pages=20)
    told = live(runner, forget_history, small, submits, faults)
    assert len(told["a"].tokens) == 60
    assert f"{MAX_DEATHS * INNOCENCE} times in a row" in told["long"].error


# ---- grammars and a real model
@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)


@pytest.fixture(scope="module")
def masks(tokenizer: Tokenizer) -> Iterator[GrammarMasks]:
    made = GrammarMasks(VocabularyBytes.of(tokenizer), tokenizer.vocab_size)
    yield made
    made.close()


LIST = {"type": "array", "items": {"type": "string"}, "minItems": 3}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20},
                       "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["name"],
    }},
}  # fmt: skip


NESTED = """root ::= "x" | "(" root root ")\""""


@pytest.mark.parametrize("seed", range(4))
def test_answers_under_a_grammar_whose_tokens_run_short(
    masks: GrammarMasks, tokenizer: Tokenizer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget replaces tokens, up to a number: a resumed one has to replace the same."""
    monkeypatch.setattr(token_budget, "MAX_REPLACED", 20)
    rng = random.Random(seed)
    stop_ids = sorted(tokenizer.eog_ids)
    [opening] = tokenizer.encode("(")[-1:]
    hot = SamplingParams(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    deep = replace(hot, logit_bias={opening: 6.0})
    nested = whole_answer(source_part(GrammarKind.GBNF, NESTED))
    submits = [
        Submit(f"{schema}", prompt(20, i), hot, stop_ids, max_tokens=rng.choice([70, 90, 130]),
               grammar=whole_answer(json_part(schema)))
        for i, schema in enumerate([LIST, TREE])
    ]  # fmt: skip
    submits += [
        Submit(f"{n}", prompt(20, seed), deep, stop_ids, max_tokens=n, grammar=nested)
        for n in (60, 130, 200)
    ]

    def runner() -> HistoryRunner:
        return HistoryRunner(vocab_size=tokenizer.vocab_size, n_pages=40)

    def engine(of: Runner) -> Engine:
        return Engine(of, constraints=masks, speculate=4)

    expected = live(runner(), forget_history, engine, submits, {})
    assert all(told.finish is FinishReason.STOP for told in expected.values())
    assert any(told.n_replaced for told in expected.values())
    for _ in range(3):
        faults = {n: rng.choice(list(Fault)) for n in rng.sample(range(1, 150), 12)}
        assert live(runner(), forget_history, engine, submits, faults) == expected


def fill_with_nan(runner: Runner) -> None:
    """Forgets all KV: what would be used of it shows in every logit."""
    assert isinstance(runner, LocalRunner)
    kv = runner._model.state.kv
    for array in (kv.keys, kv.values):
        assert array.dtype == np.uint16  # halves
        array.fill(int(np.array(np.nan, np.float16).view(np.uint16)))


def test_a_real_model_uses_nothing_of_what_was_lost(
    masks: GrammarMasks, tokenizer: Tokenizer
) -> None:
    """With n-grams and a draft model, whose own pages outlive the loss of a node."""
    text = tokenizer.encode("dllama runs one model on several machines. A worker ")
    stop_ids = sorted(tokenizer.eog_ids)
    submits = [
        Submit(name, text[: 5 + i], params, stop_ids, max_tokens=24)
        for i, (name, params) in enumerate(SAMPLINGS.items())
    ]
    submits += [
        Submit("json", text, WARM, stop_ids, max_tokens=60, grammar=whole_answer(json_part(LIST))),
        Submit("mean", text * 4, pooling="mean", cache_prompt=False),
    ]
    with local_runner(Path(DEFAULT_MODEL), n_pages=24) as runner, local_runner(
        Path(DEFAULT_MODEL), n_pages=24
    ) as small:  # fmt: skip

        def engine(of: Runner) -> Engine:
            draft = DraftModel(small, max_rows=64)
            return Engine(
                of, constraints=masks, max_batch=6, max_step_tokens=48, speculate=3,
                draft_model=draft,
            )  # fmt: skip

        expected = live(runner, fill_with_nan, engine, submits, {})
        assert all(told.error == "" for told in expected.values())
        rng = random.Random(5)
        for _ in range(3):
            faults = {n: rng.choice(list(Fault)) for n in rng.sample(range(1, 40), 8)}
            assert live(runner, fill_with_nan, engine, submits, faults) == expected
