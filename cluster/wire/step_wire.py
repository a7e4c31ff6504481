"""A step off the wire, checked: kernels index memory by these numbers and do not check them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cluster.wire.messages import StepCall
from dllama.errors import ProtocolError
from dllama.step import MAX_CANDIDATES, PAGE_TOKENS, Step


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What a rank has room for."""

    max_step_tokens: int
    n_pages: int
    max_seq_len: int
    vocab_size: int
    embed_row_bytes: int


def step_call(step: Step, embed_rows: np.ndarray) -> StepCall:
    """The message of a step."""
    return StepCall(
        step.tokens,
        step.positions,
        step.starts,
        step.pages,
        step.logits_at,
        step.candidates,
        embed_rows,
    )


def checked_step(call: StepCall, limits: StepLimits) -> Step:
    """The step of a message. Raises ProtocolError where a number points outside of memory."""
    for name in ("tokens", "positions", "starts", "logits_at", "candidates"):
        _check(getattr(call, name).ndim == 1, f"{name} has one side")
    for name in ("tokens", "positions", "starts", "pages", "logits_at", "candidates"):
        _check(getattr(call, name).dtype == np.int32, f"{name} is int32")
    n_tokens, n_sequences = len(call.tokens), len(call.starts) - 1
    _check(0 < n_tokens <= limits.max_step_tokens, f"{n_tokens} tokens fit a step")
    _check(0 < n_sequences <= n_tokens, "there are no more sequences than tokens")
    _check(call.positions.shape == (n_tokens,), "every token has a position")
    _check(call.pages.ndim == 2 and len(call.pages) == n_sequences, "every sequence has pages")
    _check(
        call.embed_rows.shape == (n_tokens, limits.embed_row_bytes)
        and call.embed_rows.dtype == np.uint8,
        f"every token brings {limits.embed_row_bytes} bytes of embedding",
    )
    _check(_within(call.tokens, 0, limits.vocab_size), "tokens are in the vocabulary")
    _check(_within(call.logits_at, 0, n_tokens), "logits are asked of rows there are")
    _check(call.candidates.shape == call.logits_at.shape, "every logits row has a count")
    _check(_within(call.candidates, 0, MAX_CANDIDATES + 1), "counts of logits are in range")
    _check_pages(call, limits)
    return Step(
        call.tokens, call.positions, call.starts, call.pages, call.logits_at, call.candidates
    )


def _check_pages(call: StepCall, limits: StepLimits) -> None:
    """Every position up to a sequence's last has a page, and every page exists."""
    starts = call.starts
    _check(starts[0] == 0 and starts[-1] == len(call.tokens), "sequences cover the tokens")
    _check(bool((np.diff(starts) > 0).all()), "every sequence has a token")
    _check(_within(call.positions, 0, limits.max_seq_len), "positions are within the context")
    _check(_within(call.pages, -1, limits.n_pages), "pages exist")
    last_pages = np.maximum.reduceat(call.positions, starts[:-1]) // PAGE_TOKENS  # (S,)
    _check(_within(last_pages, 0, call.pages.shape[1]), "every position has a page")
    used = np.arange(call.pages.shape[1])[None, :] <= last_pages[:, None]  # (S, max_pages)
    _check(not (used & (call.pages < 0)).any(), "every position has a page")


def _within(values: np.ndarray, low: int, high: int) -> bool:
    return values.size == 0 or bool(values.min() >= low and values.max() < high)


def _check(holds: bool | np.bool_, promise: str) -> None:
    if not holds:
        raise ProtocolError(f"the root sent a step that breaks this rule: {promise}")
