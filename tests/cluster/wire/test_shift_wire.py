"""A shift survives the trip; one that points outside of memory, or would read what it has
overwritten, is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.wire.messages import ShiftCall, pack, unpack
from cluster.wire.shift_wire import checked_shift, shift_call
from cluster.wire.step_wire import StepLimits
from dllama.errors import ProtocolError
from dllama.kv_shift import KvShift

LIMITS = StepLimits(64, n_pages=8, max_seq_len=128, vocab_size=100, embed_row_bytes=4)


def pages(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


GOOD = ShiftCall(127, 40, 43, pages(3, 1, 5, 0), pages(3, 7, 5))


def test_a_shift_survives_the_trip() -> None:
    sent = KvShift(127, 40, 43, pages(3, 1, 5, 0), pages(3, 7, 5))
    epoch, call = unpack([bytes(frame) for frame in pack(shift_call(sent), 9)])
    assert epoch == 9 and isinstance(call, ShiftCall)
    shift = checked_shift(call, LIMITS)
    assert (shift.n_tokens, shift.n_keep, shift.n_drop) == (127, 40, 43)
    assert shift.from_pages.tolist() == [3, 1, 5, 0] and shift.to_pages.tolist() == [3, 7, 5]


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD, n_tokens=129),
        replace(GOOD, n_tokens=0),
        replace(GOOD, n_keep=-1),
        replace(GOOD, n_keep=127),
        replace(GOOD, n_drop=0),
        replace(GOOD, n_drop=88),
        replace(GOOD, from_pages=pages(3, 1, 5)),
        replace(GOOD, from_pages=pages(3, 1, 5, 8)),
        replace(GOOD, from_pages=pages(3, 1, 5, -1)),
        replace(GOOD, from_pages=pages(3, 1, 5, 5)),
        replace(GOOD, from_pages=GOOD.from_pages.astype(np.int64)),
        replace(GOOD, from_pages=GOOD.from_pages[None]),
        replace(GOOD, to_pages=pages(3, 7)),
        replace(GOOD, to_pages=pages(7, 2, 5)),  # a kept page would have to move
        replace(GOOD, to_pages=pages(3, 5, 1)),  # written before it is read
        replace(GOOD, to_pages=pages(3, 7, 7)),
    ],
)
def test_a_shift_that_harms_memory_is_refused(bad: ShiftCall) -> None:
    checked_shift(GOOD, LIMITS)
    with pytest.raises(ProtocolError, match="breaks this rule"):
        checked_shift(bad, LIMITS)
