"""The samplers: one table, and the functions of those that work on a pool of tokens.

A sampler is a row of SAMPLERS, under its name in names.py, which the API and the command line read.
Logits processors change single logits by earlier tokens (penalties.py, dry.py). Filters remove
tokens from a pool and leave at least one; their probabilities are those of the pool they get, and
they keep `min_keep` tokens where they can. Sources: llama.cpp (src/llama-sampling.cpp) for all of
them; Holtzman et al. 2019 (top_p), Meister et al. 2022 (typ_p), Nguyen et al. 2024 (min_p), Tang et
al. 2024 (top_n_sigma), Zhu et al. 2023 (dynamic temperature).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dllama.engine.sampling.dry import DryPenalties, has_dry
from dllama.engine.sampling.penalties import Penalties, has_penalties
from dllama.engine.sampling.pool import TokenPool, likely_prefix, prefix
from dllama.engine.sampling.processors import LogitsProcessor

if TYPE_CHECKING:  # SamplingParams has the table's order for a default
    from dllama.requests import SamplingParams

_MAX_INVERSE = 1e30  # keeps logit / temperature finite for any temperature above 0
_FARTHEST = 1e200  # and finite when it is divided again and again
_MAX_XTC_THRESHOLD = 0.5  # above it no two tokens can be likely enough

Filter = Callable[[TokenPool, "SamplingParams"], TokenPool]


def top_n_sigma(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps logits within top_n_sigma standard deviations (of all logits) of the best one."""
    if len(pool) == 1:
        return pool
    return _at_least(pool, -params.top_n_sigma * float(pool.x.std()), 1)


def top_k(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps the top_k most likely tokens."""
    return pool.best(params.top_k) if params.top_k < len(pool) else pool


def typ_p(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Keeps the tokens whose surprise is nearest to the mean surprise (the entropy), ties by rising
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
    """Keeps the most likely tokens whose probabilities add to top_p, as few as possible."""
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


def eta_cutoff(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Removes tokens less likely than min(epsilon, sqrt(epsilon) * exp(-entropy)), with eta_cutoff
    for epsilon.

    Source: Hewitt, Manning and Liang, "Truncation sampling as language model desmoothing" (2022).
    """
    epsilon, weights = params.eta_cutoff, np.exp(pool.x)
    total = float(weights.sum())
    entropy = math.log(total) - float(weights @ pool.x) / total
    log_eta = min(math.log(epsilon), 0.5 * math.log(epsilon) - entropy)
    return _at_least(pool, log_eta + math.log(total), max(params.min_keep, 1))


def has_xtc(params: SamplingParams) -> bool:
    """Whether top choices are ever removed."""
    return params.xtc_probability > 0.0 and params.xtc_threshold <= _MAX_XTC_THRESHOLD


def xtc(pool: TokenPool, params: SamplingParams, coin: float) -> TokenPool:
    """Removes all tokens of at least xtc_threshold but the least likely of them, if there are two
    or more and `coin`, a random number in [0, 1), is at most xtc_probability.

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


def is_greedy(params: SamplingParams) -> bool:
    """Whether only the best token is left."""
    return params.temperature == 0.0 and params.dynatemp_range == 0.0


def has_temperature(params: SamplingParams) -> bool:
    """Whether logits are scaled at all."""
    return params.temperature != 1.0 or params.dynatemp_range > 0.0


def temperature(pool: TokenPool, params: SamplingParams) -> TokenPool:
    """Divides the logits by the temperature; at 0 only the best token is left."""
    if len(pool) == 1:
        return pool
    t = params.temperature
    if params.dynatemp_range > 0.0:
        t = dynamic_temperature(pool, params)
    if t <= 0.0:
        return pool.best(1)
    inverse = min(1.0 / t, _MAX_INVERSE)
    x = np.maximum(pool.x * inverse, -_FARTHEST)
    top = min(max(pool.top * inverse, -_FARTHEST), _FARTHEST)
    return TokenPool(pool.ids, x, top, pool.is_sorted)


def dynamic_temperature(pool: TokenPool, params: SamplingParams) -> float:
    """The temperature for a pool: from temperature - range (not below 0) where one token is certain
    to temperature + range where all are equally likely, by the entropy's share of its maximum, to
    the power of the exponent."""
    p = pool.probabilities()
    # -sum(p log p), with log p = x - log(sum exp(x)) and the best x = 0
    entropy = -math.log(float(p.max())) - float(p @ pool.x)
    share = min(max(entropy / math.log(len(pool)), 0.0), 1.0)
    low = max(0.0, params.temperature - params.dynatemp_range)
    high = params.temperature + params.dynatemp_range
    return low + (high - low) * float(share**params.dynatemp_exponent)


def _at_least(pool: TokenPool, floor: float, min_keep: int) -> TokenPool:
    """The tokens whose x is at least `floor`, and the min_keep best in any case."""
    if pool.is_sorted:
        return pool.first(max(int(np.count_nonzero(pool.x >= floor)), min_keep))
    kept = np.flatnonzero(pool.x >= floor)
    return pool.only(kept) if len(kept) >= min_keep else pool.best(min_keep)


@dataclass(frozen=True, slots=True)
class SamplerSpec:
    """A sampler: its name, when it does anything, and one of `processor`, `filter` and
    `random_filter`, which gets a random number in [0, 1) too.

    `keeps_best`: it never removes the most likely token. `n_best`: it keeps exactly that many of
    the most likely tokens. `only_best`: whether it leaves the most likely token only.
    """

    name: str
    is_active: Callable[[SamplingParams], bool]
    processor: Callable[[SamplingParams], LogitsProcessor] | None = None
    filter: Filter | None = None
    random_filter: Callable[[TokenPool, SamplingParams, float], TokenPool] | None = None
    keeps_best: bool = False
    n_best: Callable[[SamplingParams], int] | None = None
    only_best: Callable[[SamplingParams], bool] | None = None


# Every sampler, in the order of names.py.
SAMPLERS = (
    SamplerSpec("penalties", has_penalties, processor=Penalties),
    SamplerSpec("dry", has_dry, processor=DryPenalties),
    SamplerSpec("top_n_sigma", lambda params: params.top_n_sigma > 0.0, filter=top_n_sigma,
                keeps_best=True),
    SamplerSpec("top_k", lambda params: params.top_k > 0, filter=top_k, keeps_best=True,
                n_best=lambda params: params.top_k),
    SamplerSpec("typ_p", lambda params: params.typical_p < 1.0, filter=typ_p),
    SamplerSpec("top_p", lambda params: params.top_p < 1.0, filter=top_p, keeps_best=True),
    SamplerSpec("min_p", lambda params: params.min_p > 0.0, filter=min_p, keeps_best=True),
    SamplerSpec("eta_cutoff", lambda params: params.eta_cutoff > 0.0, filter=eta_cutoff,
                keeps_best=True),
    SamplerSpec("xtc", has_xtc, random_filter=xtc),
    SamplerSpec("temperature", has_temperature, filter=temperature, keeps_best=True,
                only_best=is_greedy),
)  # fmt: skip
BY_NAME = {sampler.name: sampler for sampler in SAMPLERS}
