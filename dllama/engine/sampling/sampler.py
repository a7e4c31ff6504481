"""Samples the tokens of one sequence from rows of logits. Knows probabilities; nothing of steps or
time. A choice is a function of the row, the parameters, the sequence's tokens and the seed only, so
that a stream can be repeated anywhere.

logit_bias and the samplers leave a pool of tokens, and the random number of (seed, position) picks
one by the cumulative probabilities, by falling logit, ties by rising id.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dllama.engine.sampling.mirostat import cut_to_surprise, first_mu, next_mu
from dllama.engine.sampling.plan import plan_for
from dllama.engine.sampling.pool import TokenPool, draw, largest, pool_of
from dllama.engine.sampling.processors import LogitsProcessor, processed, processed_row
from dllama.engine.sampling.table import SamplerSpec
from dllama.errors import DllamaError, RequestError
from dllama.requests import SamplingParams, TokenProbs
from dllama.step import LogitRow

_COIN = 1  # the stream of random numbers for samplers, apart from the one that picks tokens
_LEAST = -3.4028234663852886e38  # log-probability of an impossible token: JSON has no infinity

_MASK = 0xFFFFFFFF
_MULTIPLY_0 = 0xD2511F53
_MULTIPLY_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9  # the golden ratio
_WEYL_1 = 0xBB67AE85  # sqrt(3) - 1
_ROUNDS = 10


class Choice(NamedTuple):
    """A token and, where the request asks for it, how likely it was."""

    token: int
    probs: TokenProbs | None


class Sampler:
    """The choices of one sequence. Its state follows from the sequence's tokens, each of them
    chosen here once, and mirostat's from their chances too; pre-emptions do not change it."""

    def __init__(self, params: SamplingParams, vocab_size: int, *, mu: float | None = None) -> None:
        """`mu` is mirostat's, where the sequence has tokens that another sampler chose."""
        self._params = params
        self._vocab_size = vocab_size
        self._plan = plan_for(params, vocab_size)
        self._late_processors: dict[str, LogitsProcessor] = {
            sampler.name: sampler.processor(params)
            for sampler in self._plan.rest
            if sampler.processor is not None
        }
        self._mu = first_mu(params) if mu is None else mu

    @property
    def n_candidates(self) -> int:
        """The number of a row's largest logits that a choice needs, 1..MAX_CANDIDATES; 0 for the
        whole row."""
        return self._plan.n_candidates

    @property
    def mu(self) -> float | None:
        """Mirostat's state after the last choice; None without mirostat."""
        return self._mu if self._params.mirostat else None

    def choose(self, row: LogitRow, tokens: list[int], told: LogitRow | None = None) -> Choice:
        """The token that follows `tokens` (prompt and answer), which begin with those of the last
        call.

        The row is whole or holds at least `n_candidates` entries (or all there are). `told` is the
        model's own row for log-probabilities, where `row` was masked. Raises DllamaError where the
        logits are not numbers, RequestError where logit_bias forbids every token.
        """
        if not math.isfinite(row.log_sum_exp):
            raise DllamaError(
                "the model's logits are not numbers (their log-sum-exp is "
                f"{row.log_sum_exp}); the weights are damaged or unfit for this engine, load the "
                "model file anew or use another one"
            )
        params, position = self._params, len(tokens)
        pool = self._begin(row, tokens)
        for sampler in self._plan.rest:
            pool = self._apply(sampler, pool, position)
        if params.mirostat:
            pool = cut_to_surprise(pool, params, self._mu, self._vocab_size)
        index = 0 if len(pool) == 1 else draw(pool, uniform(params.seed, position))
        if params.mirostat:
            self._mu = next_mu(self._mu, params, _probability(pool, index))
        return Choice(pool.token(index), self._probs(told or row, pool, index))

    def _begin(self, row: LogitRow, tokens: list[int]) -> TokenPool:
        """The tokens after the processors that come first; only the best of them if the plan says
        so."""
        processors, n_kept = self._plan.processors, self._plan.n_kept
        for processor in (*processors, *self._late_processors.values()):
            processor.follow(tokens)
        if row.ids is None:
            ids, logits = None, processed_row(row.logits, processors)
            if n_kept:
                ids = np.array([logits.argmax()]) if n_kept == 1 else largest(logits, n_kept)
                logits = logits[ids]
        else:
            assert n_kept > 0, "a choice among all tokens needs the whole row"
            ids, logits = _best_listed(row.ids, row.logits, n_kept, processors)
        return _not_empty(pool_of(ids, logits, is_sorted=n_kept > 0))

    def _apply(self, sampler: SamplerSpec, pool: TokenPool, position: int) -> TokenPool:
        if sampler.filter is not None:
            return sampler.filter(pool, self._params)
        if sampler.random_filter is not None:
            coin = uniform(self._params.seed, position, _COIN)
            return sampler.random_filter(pool, self._params, coin)
        ids = np.sort(pool.token_ids())
        logits = np.zeros(len(ids))
        logits[np.searchsorted(ids, pool.token_ids())] = pool.x + pool.top
        changed = processed(ids, logits, [self._late_processors[sampler.name]])
        return _not_empty(pool_of(ids, changed, is_sorted=False))

    def _probs(self, row: LogitRow, pool: TokenPool, index: int) -> TokenProbs | None:
        n = self._params.n_probs
        if n is None:
            return None
        if self._params.post_sampling_probs:
            return probs_of(pool, index, n)
        return logprobs_of(row, pool.token(index), n)


def _best_listed(
    ids: np.ndarray, logits: np.ndarray, n_kept: int, processors: list[LogitsProcessor]
) -> tuple[np.ndarray, np.ndarray]:
    """The best n_kept of a sorted list of candidates after the processors."""
    if any(processor.touched() for processor in processors):
        logits = processed(ids, logits, processors)
        order = np.lexsort((ids, -logits))[:n_kept]
        return ids[order], logits[order]
    return ids[:n_kept], logits[:n_kept]


def _probability(pool: TokenPool, index: int) -> float:
    return float(np.exp(pool.x[index]) / np.exp(pool.x).sum())


def _not_empty(pool: TokenPool | None) -> TokenPool:
    """Raises RequestError where even the best logit is minus infinity."""
    if pool is None:
        raise RequestError(
            "logit_bias forbids every token there is, so that none can be chosen; "
            "leave at least one token without a bias of minus infinity",
            param="logit_bias",
        )
    return pool


# ---- probabilities for the client
def logprobs_of(row: LogitRow, token: int, n: int) -> TokenProbs:
    """The natural log-probabilities of a token and of the `n` best, by the logits before samplers.

    The row is whole, or holds the token and at least n entries.
    """
    if row.ids is None:
        order = largest(row.logits, n) if n else np.zeros(0, np.int64)
        ids, logits, own = order, row.logits[order], row.logits[token]
    else:
        ids, logits = row.ids[:n], row.logits[:n]
        own = row.logits[np.flatnonzero(row.ids == token)[0]]
    values = np.maximum(logits.astype(np.float64) - row.log_sum_exp, _LEAST)
    return TokenProbs(
        token, max(float(own) - row.log_sum_exp, _LEAST), ids.tolist(), values.tolist()
    )


def probs_of(pool: TokenPool, index: int, n: int) -> TokenProbs:
    """The probabilities of a token and of up to `n` best among those that the samplers left."""
    p = pool.probabilities()
    places = largest(p, n) if n else np.zeros(0, np.int64)
    places = places[p[places] > 0.0]
    ids = pool.token_ids()
    return TokenProbs(pool.token(index), float(p[index]), ids[places].tolist(), p[places].tolist())


# ---- random numbers
def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Four random words of 32 bits for a counter of four words and a key of two, without a state.

    Source: Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1,
    2, 3" (SC 2011), with the constants of the Random123 library.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = _MULTIPLY_0 * c0
        p1 = _MULTIPLY_1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """A random number in [0, 1) with 53 bits, the same for the same arguments. The key is the seed,
    the counter the position (the lowest 64 bits of both count); streams are independent."""
    high, low, _, _ = philox4x32(
        (position & _MASK, position >> 32 & _MASK, stream, 0),
        (seed & _MASK, seed >> 32 & _MASK),
    )
    return ((high >> 5) * 67108864.0 + (low >> 6)) / 9007199254740992.0
