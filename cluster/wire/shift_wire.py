"""A shift of keys and values off the wire, checked as steps are: kernels index memory by it."""

from __future__ import annotations

import numpy as np

from cluster.wire.messages import ShiftCall
from cluster.wire.step_wire import StepLimits
from dllama.errors import ProtocolError
from dllama.kv_shift import KvShift
from dllama.step import PAGE_TOKENS


def shift_call(shift: KvShift) -> ShiftCall:
    """The message of a shift."""
    return ShiftCall(shift.n_tokens, shift.n_keep, shift.n_drop, shift.from_pages, shift.to_pages)


def checked_shift(call: ShiftCall, limits: StepLimits) -> KvShift:
    """The shift of a message. Raises ProtocolError where a number points outside of memory, or
    where a page would be written before it is read."""
    _check(0 < call.n_tokens <= limits.max_seq_len, "tokens fit the context")
    _check(0 <= call.n_keep < call.n_tokens, "tokens that stay are among those there are")
    _check(0 < call.n_drop <= call.n_tokens - call.n_keep, "tokens that go are behind those")
    n_from = -(-call.n_tokens // PAGE_TOKENS)
    n_to = -(-(call.n_tokens - call.n_drop) // PAGE_TOKENS)
    for pages, n in ((call.from_pages, n_from), (call.to_pages, n_to)):
        _check(pages.dtype == np.int32 and pages.shape == (n,), f"{n} pages hold the tokens")
        _check(bool(((pages >= 0) & (pages < limits.n_pages)).all()), "pages exist")
        _check(len(np.unique(pages)) == n, "no page is named twice")
    is_new = call.to_pages != call.from_pages[:n_to]
    _check(not is_new[: call.n_keep // PAGE_TOKENS].any(), "whole pages that stay stay in place")
    _check(not np.isin(call.to_pages[is_new], call.from_pages).any(), "new pages are new")
    return KvShift(call.n_tokens, call.n_keep, call.n_drop, call.from_pages, call.to_pages)


def _check(holds: bool | np.bool_, promise: str) -> None:
    if not holds:
        raise ProtocolError(f"the root sent a shift that breaks this rule: {promise}")
