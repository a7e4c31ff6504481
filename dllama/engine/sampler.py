"""Chooses the tokens of one sequence from rows of logits. Knows probabilities; nothing of steps
or time. A choice is a function of the row, the parameters, the sequence's tokens and the seed:
nothing else, so that a stream can be repeated anywhere.

logit_bias and the samplers leave a pool of tokens, and the noise of (seed, position) picks a
point on their cumulated probabilities, by falling logit, ties by rising id.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dllama.engine import cuts
from dllama.engine.logit_edits import Edit, edit_listed, edit_row
from dllama.engine.mirostat import cut_to_surprise, first_mu, next_mu
from dllama.engine.noise import uniform
from dllama.engine.sampler_plan import EDITS, plan_for
from dllama.engine.temperature import temper
from dllama.engine.token_pool import TokenPool, draw, largest, pool_of
from dllama.engine.token_probs import logprobs_of, probs_of
from dllama.errors import DllamaError, RequestError
from dllama.requests import SamplingParams, TokenProbs
from dllama.step import LogitRow

_COIN = 1  # the noise that xtc throws is another than the one that picks the token

_CUTS: dict[str, Callable[[TokenPool, SamplingParams], TokenPool]] = {
    "top_n_sigma": cuts.top_n_sigma,
    "top_k": cuts.top_k,
    "typ_p": cuts.typical,
    "top_p": cuts.top_p,
    "min_p": cuts.min_p,
    "temperature": temper,
}


class Choice(NamedTuple):
    """A token and, where the request asks for it, how likely it was."""

    token: int
    probs: TokenProbs | None


class Sampler:
    """The choices of one sequence. What it remembers follows from the sequence's own tokens, each
    chosen here once, and from nothing that happens to the sequence meanwhile."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        self._params = params
        self._vocab_size = vocab_size
        self._plan = plan_for(params, vocab_size)
        self._late_edits: dict[str, Edit] = {
            name: EDITS[name](params) for name in self._plan.rest if name in EDITS
        }
        self._mu = first_mu(params)

    @property
    def n_candidates(self) -> int:
        """How many of a row's largest logits a choice needs, 1..MAX_CANDIDATES; 0 for the row."""
        return self._plan.n_candidates

    def choose(self, row: LogitRow, tokens: list[int], told: LogitRow | None = None) -> Choice:
        """The token that follows `tokens` (prompt and answer); they begin with those of the
        choice before.

        The row is whole or holds at least `n_candidates` entries (or all there are); `told` is
        the model's own, where `row` was changed. Raises DllamaError where the logits are no
        numbers, RequestError where logit_bias forbids every token.
        """
        if not math.isfinite(row.log_sum_exp):
            raise DllamaError(
                "the model's logits are not numbers (their log-sum-exp is "
                f"{row.log_sum_exp}); the weights are damaged or unfit for this engine, load the "
                "model file anew or use another one"
            )
        params, position = self._params, len(tokens)
        pool = self._begin(row, tokens)
        for name in self._plan.rest:
            pool = self._apply(name, pool, position)
        index = 0 if len(pool) == 1 else draw(pool, uniform(params.seed, position))
        if params.mirostat:
            self._mu = next_mu(self._mu, params, _probability(pool, index))
        return Choice(pool.token(index), self._probs(told or row, pool, index))

    def _begin(self, row: LogitRow, tokens: list[int]) -> TokenPool:
        """The tokens after the edits, and the best of them if only these are wanted."""
        edits, n_kept = self._plan.edits, self._plan.n_kept
        for edit in (*edits, *self._late_edits.values()):
            edit.follow(tokens)
        if row.ids is None:
            ids, logits = None, edit_row(row.logits, edits)
            if n_kept:
                ids = np.array([logits.argmax()]) if n_kept == 1 else largest(logits, n_kept)
                logits = logits[ids]
        else:
            assert n_kept > 0, "a choice among all tokens needs the whole row"
            ids, logits = _best_listed(row.ids, row.logits, n_kept, edits)
        return _something(pool_of(ids, logits, is_sorted=n_kept > 0))

    def _apply(self, name: str, pool: TokenPool, position: int) -> TokenPool:
        params = self._params
        if name == "xtc":
            return cuts.xtc(pool, params, uniform(params.seed, position, _COIN))
        if name == "mirostat":
            return cut_to_surprise(pool, params, self._mu, self._vocab_size)
        if name in self._late_edits:
            ids = np.sort(pool.token_ids())
            logits = np.zeros(len(ids))
            logits[np.searchsorted(ids, pool.token_ids())] = pool.x + pool.top
            edited = edit_listed(ids, logits, [self._late_edits[name]])
            return _something(pool_of(ids, edited, is_sorted=False))
        return _CUTS[name](pool, params)

    def _probs(self, row: LogitRow, pool: TokenPool, index: int) -> TokenProbs | None:
        n = self._params.n_probs
        if n is None:
            return None
        if self._params.post_sampling_probs:
            return probs_of(pool, index, n)
        return logprobs_of(row, pool.token(index), n)


def _best_listed(
    ids: np.ndarray, logits: np.ndarray, n_kept: int, edits: list[Edit]
) -> tuple[np.ndarray, np.ndarray]:
    """The best n_kept of a sorted list of candidates after the edits."""
    if any(edit.touched() for edit in edits):
        logits = edit_listed(ids, logits, edits)
        order = np.lexsort((ids, -logits))[:n_kept]
        return ids[order], logits[order]
    return ids[:n_kept], logits[:n_kept]


def _probability(pool: TokenPool, index: int) -> float:
    return float(np.exp(pool.x[index]) / np.exp(pool.x).sum())


def _something(pool: TokenPool | None) -> TokenPool:
    """Raises RequestError where even the best logit is minus infinity."""
    if pool is None:
        raise RequestError(
            "logit_bias forbids every token there is, so that none can be chosen; "
            "leave at least one token without a bias of minus infinity",
            param="logit_bias",
        )
    return pool
