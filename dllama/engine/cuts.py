"""The samplers that take tokens out: each makes a pool smaller, and leaves at least one token.

Probabilities are always those of the pool as it comes in. A cut keeps `min_keep` tokens where it
can. Sources: llama.cpp (src/llama-sampling.cpp) for all of them; Holtzman et al. 2019 (top_p),
Meister et al. 2022 (typical), Nguyen et al. 2024 (min_p), Tang et al. 2024 (top_n_sigma).
"""

from __future__ import annotations

import math

import numpy as np

from dllama.engine.token_pool import TokenPool, likely_prefix, prefix
from dllama.requests import SamplingParams


def top_n_sigma(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps logits within top_n_sigma standard deviations (of all logits) of the best one."""
    if len(pool) == 1:
        return pool
    return _at_least(pool, -params.top_n_sigma * float(pool.x.std()), 1)


def top_k(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps the top_k best."""
    return pool.best(params.top_k) if params.top_k < len(pool) else pool


def typical(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps the tokens whose surprise is nearest to the mean one (the entropy), ties by rising
    id, until their probabilities add to more than typical_p."""
    pool = pool.sorted_if_small()
    n = len(pool)
    weights = np.exp(pool.x)
    total = float(weights.sum())
    weights /= total
    surprise = math.log(total) - pool.x
    distance = np.abs(surprise - float(weights @ surprise))
    if pool.is_sorted:
        order = np.lexsort((pool.token_ids(), distance))
        mass = weights[order].cumsum()
        n_kept = int(mass.searchsorted(params.typical_p, side="right")) + 1
        kept = np.sort(order[: min(n, max(n_kept, params.min_keep, 1))])
    else:
        nearness = float(distance.min()) - distance
        earlier, later = prefix(nearness, weights, math.nextafter(params.typical_p, math.inf))
        earlier[later] = True
        kept = np.flatnonzero(earlier)
        if len(kept) < params.min_keep:
            kept = np.sort(np.argsort(distance, kind="stable")[: params.min_keep])
    return pool.only(kept)


def top_p(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps the shortest prefix of the tokens in order whose probabilities add to top_p."""
    pool = pool.sorted_if_small()
    weights = np.exp(pool.x)
    if pool.is_sorted:
        mass = weights.cumsum()
        n = int(mass.searchsorted(params.top_p * mass[-1])) + 1
        return pool.first(max(n, params.min_keep))
    kept, _ = likely_prefix(pool.x, weights, params.top_p * float(weights.sum()))
    return pool.only(kept) if len(kept) >= params.min_keep else pool.best(params.min_keep)


def min_p(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps tokens at least min_p times as likely as the best one."""
    return _at_least(pool, math.log(params.min_p), params.min_keep)


def xtc(pool: TokenPool, params: SamplingParams, coin: float) -> TokenPool:
    """Where the coin, 0 <= coin < 1, is at most xtc_probability: takes out all tokens at least
    xtc_threshold likely but the last of them, if there are two or more.

    Source: "exclude top choices", https://github.com/oobabooga/text-generation-webui/pull/6335.
    """
    if coin > params.xtc_probability:
        return pool
    pool = pool.sorted_if_small()
    weights = np.exp(pool.x)
    likely = np.flatnonzero(weights >= params.xtc_threshold * float(weights.sum()))
    n_out = len(likely) - 1
    if n_out < 1 or len(pool) - n_out < params.min_keep:
        return pool
    of_likely = pool.x[likely]
    last = likely[np.flatnonzero(of_likely == of_likely.min())[-1]]
    is_kept = np.ones(len(pool), np.bool_)
    is_kept[likely] = False
    is_kept[last] = True
    return pool.only(np.flatnonzero(is_kept))


def _at_least(pool: TokenPool, floor: float, min_keep: int) -> TokenPool:
    """The tokens whose x reaches `floor`, and at any rate the min_keep best."""
    if pool.is_sorted:
        return pool.first(max(int(np.count_nonzero(pool.x >= floor)), min_keep))
    kept = np.flatnonzero(pool.x >= floor)
    return pool.only(kept) if len(kept) >= min_keep else pool.best(min_keep)
