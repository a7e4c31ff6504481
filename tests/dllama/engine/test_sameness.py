"""The promise to users: an answer depends on the request alone. Whoever else is served, however
prompts are cut, whatever is found in the cache or pre-empted, on however many ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.kv_type import KvType
from dllama.requests import SamplingParams, Submit
from dllama.step import PAGE_TOKENS
from tests.ranks_runner import RanksRunner
from tests.toy_models import write_toy

CONTEXT, N_PAGES, N_ASKS = 160, 24, 16
SAMPLINGS = [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.0, repeat_penalty=1.2),
    SamplingParams(temperature=0.9, top_k=40, seed=5),
    SamplingParams(temperature=1.2, top_k=0, top_p=0.9, min_p=0.0, seed=6),
]


def asks() -> list[Submit]:
    """Sixteen requests: several share a beginning, some outgrow the context."""
    made = []
    for i in range(N_ASKS):
        head = [(7 * k + i // 8) % 350 for k in range(40)]
        tail = [(3 * k + i) % 350 for k in range(1 + 5 * i)]
        made.append(
            Submit(
                f"ask{i}", [*head, *tail], SAMPLINGS[i % 4], max_tokens=12 if i % 5 else 140,
                context_shift=True, n_keep=40 if i % 2 else 0,
            )
        )  # fmt: skip
    return made


def answers(
    runner: RanksRunner, submits: list[Submit], *, max_batch: int = 16, max_step_tokens: int = 112
) -> dict[str, list[int]]:
    """What an engine tells when it is asked all of them at once."""
    engine = Engine(runner, max_batch=max_batch, max_step_tokens=max_step_tokens)
    told: dict[str, list[int]] = {submit.id: [] for submit in submits}
    for submit in submits:
        engine.submit(submit)
    while engine.has_work():
        for output in engine.step():
            assert output.error is None
            told[output.id] += output.tokens
        engine.scheduler.check_integrity()
    return told


def answers_alone(runner: RanksRunner) -> dict[str, list[int]]:
    """Every request by itself, in an engine of its own that has nothing in its cache."""
    told: dict[str, list[int]] = {}
    for submit in asks():
        told |= answers(runner, [replace(submit, cache_prompt=False)])
    assert runner.n_shifts > 0
    return told


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sameness") / "toy.gguf"
    return write_toy(path, max_seq_len=CONTEXT)


@pytest.fixture(scope="module")
def runner(toy: Path) -> Iterator[RanksRunner]:
    made = RanksRunner(toy, 1, n_pages=N_PAGES)
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(runner: RanksRunner) -> dict[str, list[int]]:
    return answers_alone(runner)


def test_a_batch_of_sixteen_answers_as_each_alone(
    runner: RanksRunner, alone: dict[str, list[int]]
) -> None:
    assert answers(runner, asks(), max_batch=16) == alone


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(N_ASKS)),
    max_batch=st.integers(1, 16),
    spare_tokens=st.integers(0, 60),
    private=st.sets(st.integers(0, N_ASKS - 1)),
    n_pages=st.integers(CONTEXT // PAGE_TOKENS, N_PAGES),
)
def test_nothing_else_changes_an_answer(
    runner: RanksRunner, alone: dict[str, list[int]], order: list[int], max_batch: int,
    spare_tokens: int, private: set[int], n_pages: int,
) -> None:  # fmt: skip
    """Any order, batch, chunking and pool; some find the cache and some do not."""
    submits = asks()
    chosen = [replace(submits[i], cache_prompt=i not in private) for i in order]
    runner.n_pages = n_pages  # fewer than there are: sequences are pre-empted
    try:
        told = answers(
            runner, chosen, max_batch=max_batch, max_step_tokens=max_batch + spare_tokens
        )
    finally:
        runner.n_pages = N_PAGES
    assert told == alone


def test_three_ranks_answer_as_one(toy: Path, alone: dict[str, list[int]]) -> None:
    runner = RanksRunner(toy, 3, n_pages=N_PAGES)
    assert answers(runner, asks(), max_batch=7, max_step_tokens=50) == alone
    runner.close()


def test_turn_twenty_computes_only_its_new_tokens(tmp_path: Path) -> None:
    """A chat of 4,000 tokens: what a turn computes is the last token of the answer before, which
    nobody has computed yet, and the user's words; the answers are those without a cache."""
    path = write_toy(tmp_path / "toy.gguf", max_seq_len=4200, dim=32, n_heads=2, n_kv_heads=1)
    runner = RanksRunner(path, 1, n_pages=264)
    engine = Engine(runner, max_step_tokens=100)
    greedy = SamplingParams(temperature=0.0)
    chat: list[int] = []
    for turn in range(20):
        question = [(11 * turn + k) % 350 for k in range(170)]
        submit = Submit(f"turn{turn}", [*chat, *question], greedy, max_tokens=30, session_id="chat")
        before = runner.n_rows
        told, n_cached = ask(engine, submit)
        n_new = len(question) + (1 if turn else 0)
        assert runner.n_rows - before == n_new + len(told) - 1, f"turn {turn}"
        assert n_cached == len(submit.tokens) - n_new
        chat = [*submit.tokens, *told]
    assert len(chat) == 4000
    again, n_cached = ask(engine, replace(submit, id="again", cache_prompt=False))
    assert again == told and n_cached == 0
    runner.close()


@pytest.mark.parametrize("kv_type", list(KvType))
@pytest.mark.parametrize("world_size", [1, 3])
def test_what_is_found_within_a_page_gives_the_bits_of_a_fresh_prompt(
    toy: Path, world_size: int, kv_type: KvType
) -> None:
    """Prompts that part from each other anywhere, one after the other and all at once."""
    runner, other = (
        RanksRunner(toy, world_size, n_pages=N_PAGES, kv_type=kv_type) for _ in range(2)
    )
    base = [(7 * k) % 350 for k in range(77)]
    prompts = [[*base[:n], *base[n + 3 :]] for n in (51, 0, 31, 33, 64, 70)] + [base, base]
    sampling = SamplingParams(temperature=0.8, seed=3, n_probs=2)
    submits = [Submit(f"p{i}", tokens, sampling, max_tokens=8) for i, tokens in enumerate(prompts)]
    engine, fresh = (Engine(ranks, max_step_tokens=112) for ranks in (runner, other))
    private = [replace(submit, cache_prompt=False) for submit in submits]
    n_found = []
    for submit, alone in zip(submits, private, strict=True):
        told, n_cached = ask(engine, submit)
        assert told == ask(fresh, alone)[0]
        n_found.append(n_cached)
    assert n_found == [0, 0, 31, 33, 51, 64, 70, 76]
    together = Engine(runner, max_step_tokens=112)
    for _ in range(2):
        assert answers_of(together, submits) == answers_of(fresh, private)
    runner.close()
    other.close()


def answers_of(engine: Engine, submits: list[Submit]) -> dict[str, list[object]]:
    """The tokens and their probabilities of requests that are asked at once."""
    told: dict[str, list[object]] = {submit.id: [] for submit in submits}
    for submit in submits:
        engine.submit(submit)
    while engine.has_work():
        for output in engine.step():
            told[output.id] += [*output.tokens, *(output.probs or [])]
    return told


def ask(engine: Engine, submit: Submit) -> tuple[list[int], int]:
    engine.submit(submit)
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    return [token for output in outputs for token in output.tokens], outputs[-1].n_cached
