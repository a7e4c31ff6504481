"""What is done to single logits before anything is chosen: logit_bias, then the penalties for
tokens that were seen lately. Knows no probabilities.

Source: the penalties of llama.cpp (src/llama-sampling.cpp): for a token seen `count` times in the
last `repeat_last_n` tokens of prompt and answer, a logit above 0 is divided by repeat_penalty and
any other multiplied by it; then count * frequency_penalty + presence_penalty is taken off.
"""

from __future__ import annotations

import numpy as np

from dllama.requests import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    """Whether tokens seen before are treated differently at all."""
    return params.repeat_last_n != 0 and (
        params.repeat_penalty != 1.0
        or params.presence_penalty != 0.0
        or params.frequency_penalty != 0.0
    )


def n_lowered(params: SamplingParams) -> int | None:
    """The most tokens whose logits the parameters may lower; None where some logit may rise, or
    where no number can be told before the sequence is known."""
    if any(bias > 0 for bias in params.logit_bias.values()):
        return None
    if not has_penalties(params):
        return len(params.logit_bias)
    lowers_only = (
        params.repeat_penalty >= 1.0
        and params.presence_penalty >= 0.0
        and params.frequency_penalty >= 0.0
    )
    if not lowers_only or params.repeat_last_n < 0:
        return None
    return len(params.logit_bias) + params.repeat_last_n


class TokenCounts:
    """How often each token occurs among the last `last_n` of a growing list (-1: in all of it)."""

    def __init__(self, last_n: int) -> None:
        self.last_n = last_n
        self.counts: dict[int, int] = {}
        self._begin = 0  # tokens[_begin:_end] are what `counts` counts
        self._end = 0

    def follow(self, tokens: list[int]) -> None:
        """Catches up with `tokens`, which begins with all that was followed before."""
        end = len(tokens)
        begin = 0 if self.last_n < 0 else max(0, end - self.last_n)
        counts = self.counts
        for token in tokens[self._begin : min(begin, self._end)]:
            if counts[token] == 1:
                del counts[token]
            else:
                counts[token] -= 1
        for token in tokens[max(begin, self._end) : end]:
            counts[token] = counts.get(token, 0) + 1
        self._begin, self._end = begin, end


def edit_listed(
    ids: np.ndarray, logits: np.ndarray, params: SamplingParams, seen: TokenCounts | None
) -> np.ndarray:
    """The logits (k,) float32 of the tokens `ids` (k,) after bias and penalties."""
    listed = ids.tolist()
    bias = params.logit_bias
    counts = {} if seen is None else seen.counts
    return _edit(
        logits,
        np.array([bias.get(token, 0.0) for token in listed]) if bias else None,
        np.array([counts.get(token, 0) for token in listed], np.float64) if counts else None,
        params,
    )


def edit_row(logits: np.ndarray, params: SamplingParams, seen: TokenCounts | None) -> np.ndarray:
    """A copy of a whole row (vocab_size,) float32 after bias and penalties; the row itself where
    there is nothing to change."""
    touched = set(params.logit_bias)
    if seen is not None:
        touched.update(seen.counts)
    if not touched:
        return logits
    ids = np.fromiter(touched, np.int64, len(touched))
    edited = logits.copy()
    edited[ids] = edit_listed(ids, logits[ids], params, seen)
    return edited


def _edit(
    logits: np.ndarray, bias: np.ndarray | None, counts: np.ndarray | None, params: SamplingParams
) -> np.ndarray:
    """Computed in float64 and rounded once, so that a logit comes out the same from any list."""
    x = logits.astype(np.float64)
    if bias is not None:
        x += bias
    if counts is not None:
        repeated = np.where(x > 0.0, x / params.repeat_penalty, x * params.repeat_penalty)
        repeated -= counts * params.frequency_penalty + params.presence_penalty
        x = np.where(counts > 0.0, repeated, x)
    return x.astype(np.float32)
