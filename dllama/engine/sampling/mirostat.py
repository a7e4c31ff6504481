"""Mirostat: keeps the surprise of the text near a target by removing tokens with a surprise above
`mu` bits, and by moving mu after each token by its distance from the target.

Source: Basu et al., "Mirostat: a neural text decoding algorithm that directly controls
perplexity" (2021), versions 1 and 2, with llama.cpp's constants.
"""

from __future__ import annotations

import math

import numpy as np

from dllama.engine.sampling.pool import TokenPool
from dllama.requests import SamplingParams

_N_ESTIMATED = 100  # tokens from which version 1 estimates Zipf's exponent


def first_mu(params: SamplingParams) -> float:
    """mu before the first token."""
    return 2.0 * params.mirostat_tau


def next_mu(mu: float, params: SamplingParams, probability: float) -> float:
    """mu after a token with this probability in its pool."""
    surprise = -math.log2(max(probability, 1e-300))
    return mu - params.mirostat_eta * (surprise - params.mirostat_tau)


def cut_to_surprise(pool: TokenPool, params: SamplingParams, mu: float, n_vocab: int) -> TokenPool:
    """The pool without tokens of too high a surprise, by version 1 or 2; never empty."""
    if len(pool) == 1:
        return pool
    return _version_1(pool, mu, n_vocab) if params.mirostat == 1 else _version_2(pool, mu)


def _version_1(pool: TokenPool, mu: float, n_vocab: int) -> TokenPool:
    """The k best tokens, where a Zipf distribution of the estimated exponent has surprise mu."""
    x = pool.best(_N_ESTIMATED).x
    ranks = np.arange(1, len(x))
    t = np.log((ranks + 1) / ranks)
    exponent = float(t @ -np.diff(x)) / float(t @ t)
    epsilon = exponent - 1.0
    if abs(epsilon) < 1e-9:
        ratio = 1.0 / math.log(n_vocab)  # the limit of the next line
    else:
        ratio = epsilon / -math.expm1(-epsilon * math.log(n_vocab))
    log_k = math.log(ratio) + mu * math.log(2.0)
    log_k = log_k / exponent if exponent > 0.0 else math.copysign(math.inf, log_k)
    if log_k >= math.log(len(pool)):
        return pool
    return pool.best(max(1, int(math.exp(log_k))))


def _version_2(pool: TokenPool, mu: float) -> TokenPool:
    """The tokens with a surprise of at most mu bits."""
    floor = math.log(float(np.exp(pool.x).sum())) - mu * math.log(2.0)
    floor = min(floor, 0.0)  # the best token stays
    if pool.is_sorted:
        return pool.first(int(np.count_nonzero(pool.x >= floor)))
    return pool.only(np.flatnonzero(pool.x >= floor))
