"""Every sampler as its definition reads, in Python floats, lists and full sorts: the oracle.

A pool is a list of (logit, token), by falling logit, ties by rising token.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from dllama.engine.sampling.sampler import uniform
from dllama.requests import SamplingParams

Pool = list[tuple[float, int]]


def in_order(pool: Pool) -> Pool:
    return sorted(pool, key=lambda entry: (-entry[0], entry[1]))


def softmax(pool: Pool) -> list[float]:
    best = max(logit for logit, _ in pool)
    weights = [math.exp(logit - best) for logit, _ in pool]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def penalties(pool: Pool, params: SamplingParams, tokens: Sequence[int]) -> Pool:
    last_n = params.repeat_last_n
    counts = Counter(tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :])
    edited = []
    for x, token in pool:
        if counts[token]:
            x = x / params.repeat_penalty if x > 0 else x * params.repeat_penalty
            x = x - (counts[token] * params.frequency_penalty + params.presence_penalty)
        edited.append((x, token))
    return edited


def dry_lengths(tokens: Sequence[int], params: SamplingParams) -> dict[int, int]:
    """For each token that would go on with a repetition, the length of the longest one."""
    last_n = params.dry_penalty_last_n
    window = list(tokens if last_n < 0 else tokens[max(0, len(tokens) - last_n) :])
    limit = len(window)
    for end in range(len(tokens), 0, -1):
        ends = [[token] for token in params.dry_breakers] + params.dry_phrases
        if any(list(tokens[:end][-len(phrase) :]) == phrase for phrase in ends):
            limit = min(limit, len(tokens) - end)
            break
    if limit < params.dry_allowed_length:
        return {}
    longest: dict[int, int] = {}
    for place in range(len(window) - 1):
        length = 0
        while length <= place and window[place - length] == window[-1 - length]:
            length += 1
        length = min(length, limit)
        if length >= params.dry_allowed_length:
            following = window[place + 1]
            longest[following] = max(length, longest.get(following, 0))
    return {t: n for t, n in longest.items() if t not in params.dry_breakers}


def dry(pool: Pool, params: SamplingParams, tokens: Sequence[int]) -> Pool:
    if params.dry_multiplier <= 0:
        return pool
    lengths = dry_lengths(tokens, params)
    edited = []
    for x, token in pool:
        if token in lengths:
            excess = lengths[token] - params.dry_allowed_length
            x -= params.dry_multiplier * params.dry_base**excess
        edited.append((x, token))
    return edited


def top_n_sigma(pool: Pool, params: SamplingParams) -> Pool:
    if params.top_n_sigma <= 0:
        return pool
    values = [x for x, _ in pool]
    mean = math.fsum(values) / len(values)
    sigma = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values))
    return [(x, t) for x, t in pool if x >= pool[0][0] - params.top_n_sigma * sigma]


def top_k(pool: Pool, params: SamplingParams) -> Pool:
    return pool[: params.top_k] if params.top_k else pool


def typ_p(pool: Pool, params: SamplingParams) -> Pool:
    if params.typical_p >= 1:
        return pool
    p = softmax(pool)
    entropy = -math.fsum(q * math.log(q) for q in p if q > 0)
    far = [abs(-math.log(q) - entropy) if q > 0 else math.inf for q in p]
    order = sorted(range(len(pool)), key=lambda i: (round(far[i], 12), pool[i][1]))
    kept, total = [], 0.0
    for i in order:
        if total > params.typical_p and len(kept) >= params.min_keep:
            break
        kept.append(pool[i])
        total += p[i]
    return in_order(kept)


def top_p(pool: Pool, params: SamplingParams) -> Pool:
    if params.top_p >= 1:
        return pool
    total, kept = 0.0, 0
    for q in softmax(pool):
        total += q
        kept += 1
        if total >= params.top_p and kept >= params.min_keep:
            break
    return pool[:kept]


def min_p(pool: Pool, params: SamplingParams) -> Pool:
    best = pool[0][0]
    return [
        (x, t)
        for i, (x, t) in enumerate(pool)
        if i < params.min_keep or math.exp(x - best) >= params.min_p
    ]


def eta_cutoff(pool: Pool, params: SamplingParams) -> Pool:
    """Hewitt et al. 2022, equation 8: the best token stays in any case."""
    if params.eta_cutoff == 0:
        return pool
    p = softmax(pool)
    entropy = -math.fsum(q * math.log(q) for q in p if q > 0)
    eta = min(params.eta_cutoff, math.sqrt(params.eta_cutoff) * math.exp(-entropy))
    n_kept = max(sum(q >= eta for q in p), params.min_keep, 1)
    return pool[:n_kept]


def xtc(pool: Pool, params: SamplingParams, coin: float) -> Pool:
    if params.xtc_probability == 0 or params.xtc_threshold > 0.5 or coin > params.xtc_probability:
        return pool
    n_likely = sum(q >= params.xtc_threshold for q in softmax(pool))
    if n_likely < 2 or len(pool) - (n_likely - 1) < params.min_keep:
        return pool
    return pool[n_likely - 1 :]


def temperature(pool: Pool, params: SamplingParams) -> Pool:
    t = params.temperature
    if params.dynatemp_range > 0 and len(pool) > 1:
        entropy = -math.fsum(q * math.log(q) for q in softmax(pool) if q > 0)
        share = min(1.0, max(0.0, entropy / math.log(len(pool))))
        low, high = max(0.0, t - params.dynatemp_range), t + params.dynatemp_range
        t = low + (high - low) * share**params.dynatemp_exponent
    return pool[:1] if t <= 0 else [(x / t, token) for x, token in pool]


def mirostat(pool: Pool, params: SamplingParams, mu: float, n_vocab: int) -> Pool:
    p = softmax(pool)
    if params.mirostat == 2:
        return [e for e, q in zip(pool, p, strict=True) if q > 0 and -math.log2(q) <= mu] or [
            pool[0]
        ]
    if len(pool) < 2:
        return pool
    head = p[:100]
    t = [math.log((i + 2) / (i + 1)) for i in range(len(head) - 1)]
    b = [math.log(head[i] / head[i + 1]) for i in range(len(head) - 1)]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    epsilon = s - 1
    k = ((epsilon * 2**mu) / (1 - n_vocab ** (-epsilon))) ** (1 / s)
    return pool[: max(1, int(min(k, 1e9)))]


PROCESSORS: dict[str, Callable[[Pool, SamplingParams, Sequence[int]], Pool]] = {
    "penalties": penalties,
    "dry": dry,
}
FILTERS: dict[str, Callable[[Pool, SamplingParams], Pool]] = {
    "top_n_sigma": top_n_sigma,
    "top_k": top_k,
    "typ_p": typ_p,
    "top_p": top_p,
    "min_p": min_p,
    "eta_cutoff": eta_cutoff,
    "temperature": temperature,
}


def rounded(pool: Pool) -> Pool:
    """Edited logits are float32 again."""
    return [(float(np.float32(x)), token) for x, token in pool]


class PlainSampler:
    """One sequence's choices; `pool` is what the last choice was made from."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.mu = 2 * params.mirostat_tau
        self.pool: Pool = []

    def choose(self, logits: np.ndarray, tokens: Sequence[int]) -> int:
        params, position = self.params, len(tokens)
        pool = [
            (float(x) + params.logit_bias.get(t, 0.0), t) for t, x in enumerate(logits.tolist())
        ]
        names = list(params.samplers)
        if params.mirostat:
            edits = [n for n in names if n in PROCESSORS]
            names = [*edits, "temperature", "mirostat"]
        while names and names[0] in PROCESSORS:
            pool = PROCESSORS[names.pop(0)](pool, params, tokens)
        pool = in_order([e for e in rounded(pool) if e[0] > -math.inf])
        for name in names:
            if name in PROCESSORS:
                pool = in_order(rounded(PROCESSORS[name](pool, params, tokens)))
            elif name == "xtc":
                pool = xtc(pool, params, uniform(params.seed, position, 1))
            elif name == "mirostat":
                pool = mirostat(pool, params, self.mu, len(logits))
            else:
                pool = FILTERS[name](pool, params)
        self.pool = pool
        return self._draw(uniform(params.seed, position))

    def _draw(self, u: float) -> int:
        p = softmax(self.pool)
        total = 0.0
        for i, q in enumerate(p):
            total += q
            if total >= u or i == len(p) - 1:
                break
        if self.params.mirostat:
            surprise = -math.log2(p[i])
            self.mu -= self.params.mirostat_eta * (surprise - self.params.mirostat_tau)
        return self.pool[i][1]
