"""A step off the wire points only into memory there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.root.warm_up import warm_up_steps
from cluster.wire.messages import StepCall
from cluster.wire.step_wire import StepLimits, checked_step, step_call
from dllama.errors import ProtocolError
from dllama.step import PAGE_TOKENS, Step

LIMITS = StepLimits(max_step_tokens=8, n_pages=4, max_seq_len=100, vocab_size=50, embed_row_bytes=6)


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def sound_call() -> StepCall:
    """Two sequences: one decodes at position 40, one prefills three tokens."""
    step = Step(
        tokens=i32(1, 2, 3, 49),
        positions=i32(40, 0, 1, 2),
        starts=i32(0, 1, 4),
        pages=i32([0, 3], [2, -1]),
        logits_at=i32(0, 3),
        candidates=i32(0, 40),
    )
    return step_call(step, np.zeros((4, 6), np.uint8))


def test_a_sound_step_passes_as_it_is() -> None:
    call = sound_call()
    step = checked_step(call, LIMITS)
    crossing = [name for name in Step.__slots__ if name != "hidden_at"]  # rank 0's own business
    assert all((getattr(step, n) == getattr(call, n)).all() for n in crossing)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, tokens=i32(1, 2, 3, 50)),
        lambda c: replace(c, tokens=i32(1, 2, 3, -1)),
        lambda c: replace(c, tokens=c.tokens.astype(np.float32)),
        lambda c: replace(c, tokens=c.tokens[None]),
        lambda c: replace(c, positions=i32(64, 0, 1, 2)),
        lambda c: replace(c, positions=i32(100, 0, 1, 2)),
        lambda c: replace(c, positions=i32(-1, 0, 1, 2)),
        lambda c: replace(c, positions=i32(40, 0, 1)),
        lambda c: replace(c, starts=i32(0, 0, 4)),
        lambda c: replace(c, starts=i32(0, 5, 4)),
        lambda c: replace(c, starts=i32(1, 2, 4)),
        lambda c: replace(c, starts=i32(0, 1, 3)),
        lambda c: replace(c, starts=i32(0)),
        lambda c: replace(c, pages=i32([0, 4], [2, -1])),
        lambda c: replace(c, pages=i32([0, -1], [2, -1])),
        lambda c: replace(c, pages=i32([-1, 1], [2, -1])),
        lambda c: replace(c, pages=i32([0, -2], [2, -1])),
        lambda c: replace(c, pages=i32([0, 3])),
        lambda c: replace(c, logits_at=i32(0, 4)),
        lambda c: replace(c, logits_at=i32(0)),
        lambda c: replace(c, candidates=i32(0, 257)),
        lambda c: replace(c, embed_rows=np.zeros((4, 5), np.uint8)),
        lambda c: replace(c, embed_rows=np.zeros((3, 6), np.uint8)),
    ],
)
def test_a_step_that_points_outside_is_refused(change: Callable[[StepCall], StepCall]) -> None:
    with pytest.raises(ProtocolError, match="breaks this rule"):
        checked_step(change(sound_call()), LIMITS)


arrays = hnp.arrays(np.int32, hnp.array_shapes(max_dims=2, max_side=4), elements=st.integers(-2, 9))


@given(st.builds(StepCall, *[arrays] * 6, st.just(np.zeros((2, 6), np.uint8))))
def test_whatever_passes_points_inside(call: StepCall) -> None:
    try:
        step = checked_step(call, LIMITS)
    except ProtocolError:
        return
    for s in range(len(step.starts) - 1):
        for position in step.positions[step.starts[s] : step.starts[s + 1]]:
            assert all(0 <= p < 4 for p in step.pages[s, : position // PAGE_TOKENS + 1])


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 300))
def test_warm_up_steps_are_sound(max_tokens: int, n_pages: int, max_seq_len: int) -> None:
    limits = StepLimits(max_tokens, n_pages, max_seq_len, 1, 1)
    for step in warm_up_steps(max_tokens, n_pages, max_seq_len):
        checked_step(step_call(step, np.zeros((step.n_tokens, 1), np.uint8)), limits)
