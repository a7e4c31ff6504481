"""Conversations that outgrow the context: what the ranks compute after many shifts is what a
reference with a shifting cache computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.engine.engine import Engine
from dllama.formats import open_model
from dllama.kv import KvShift
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.step import PAGE_TOKENS, Step
from tests.ranks_runner import RanksRunner
from tests.references.shifting import ShiftingReference
from tests.toy_models import write_toy

CONTEXT = 80  # two and a half pages
GREEDY = SamplingParams(temperature=0.0)
KINDS: dict[str, dict[str, object]] = {
    "llama": {},
    "qwen3": {"arch": "qwen3", "head_dim": 32, "n_kv_heads": 4},
    "theta": {"rope_theta": 50.0},
}


def one_token(token: int, position: int, pages: list[int]) -> Step:
    one = np.array([position], np.int32)
    return Step(
        np.array([token], np.int32), one, np.array([0, 1], np.int32),
        np.array([pages], np.int32), np.zeros(1, np.int32), np.zeros(1, np.int32),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "world_size", "n_keep"),
    [("llama", 1, 0), ("llama", 3, 13), ("llama", 3, 40), ("qwen3", 3, 0), ("qwen3", 1, 13)],
)
def test_steps_and_shifts_equal_the_reference(
    tmp_path: Path, kind: str, world_size: int, n_keep: int
) -> None:
    """Seven wraps of forced tokens, every logit compared; pages are sometimes replaced."""
    path = write_toy(tmp_path / "toy.gguf", **KINDS[kind])  # type: ignore[arg-type]
    runner = RanksRunner(path, world_size)
    reference = ShiftingReference(open_model(path))
    tokens = np.random.default_rng(n_keep).integers(0, 352, 7 * CONTEXT // 2)
    pages, fresh, n_held = [5, 9, 2], 20, 0
    for token in tokens.tolist():
        if n_held == CONTEXT - 1:
            n_drop = (n_held - n_keep) // 2
            to_pages = pages[: -(-(n_held - n_drop) // PAGE_TOKENS)]
            to_pages[-1], fresh = fresh, fresh + 1
            runner.shift(
                KvShift(
                    n_held, n_keep, n_drop, np.array(pages, np.int32), np.array(to_pages, np.int32)
                )
            )
            reference.shift(n_keep, n_drop)
            pages = [*to_pages, *(p for p in pages if p not in to_pages)][:3]
            n_held -= n_drop
        [row] = runner.run(one_token(token, n_held, pages))
        expected = reference.feed(token)
        n_held += 1
        np.testing.assert_allclose(row.logits, expected, atol=1e-2 * np.abs(expected).max())
    assert runner.n_shifts >= 5
    runner.close()


@pytest.mark.parametrize(("world_size", "n_keep"), [(1, 0), (3, 11)])
def test_an_answer_goes_on_over_many_wraps(tmp_path: Path, world_size: int, n_keep: int) -> None:
    """Each token of a greedy answer of six contexts has the reference's largest logit, or one
    that is as large within half floats' errors."""
    path = write_toy(tmp_path / "toy.gguf", max_seq_len=CONTEXT, **KINDS["theta"])  # type: ignore[arg-type]
    runner = RanksRunner(path, world_size, n_pages=4)
    engine = Engine(runner)
    prompt = list(range(3, 40))
    engine.submit(
        Submit("a", prompt, GREEDY, max_tokens=6 * CONTEXT, context_shift=True, n_keep=n_keep)
    )
    told = [token for output in drain(engine) for token in output]
    assert len(told) == 6 * CONTEXT and runner.n_shifts >= 9
    engine.scheduler.check_integrity()
    reference = ShiftingReference(open_model(path))
    for token in prompt[:-1]:
        reference.feed(token)
    for before, chosen in zip([prompt[-1], *told], told, strict=False):
        if len(reference) == CONTEXT - 1:
            reference.shift(n_keep, (CONTEXT - 1 - n_keep) // 2)
        logits = reference.feed(before)
        assert logits[chosen] >= logits.max() - 2e-2 * np.abs(logits).max()
    runner.close()


def test_without_it_the_answer_ends_with_the_context(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.gguf", max_seq_len=CONTEXT)
    runner = RanksRunner(path, 1, n_pages=4)
    engine = Engine(runner)
    engine.submit(Submit("a", [1, 2, 3], GREEDY))
    outputs = []
    while engine.has_work():
        outputs += engine.step()
    assert outputs[-1].finish is FinishReason.LENGTH
    assert sum(len(output.tokens) for output in outputs) == CONTEXT - 3
    assert runner.n_shifts == 0
    runner.close()


def drain(engine: Engine) -> list[list[int]]:
    told = []
    while engine.has_work():
        told += [output.tokens for output in engine.step()]
    return told
