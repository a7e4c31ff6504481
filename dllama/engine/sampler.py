"""Chooses one token from the logits of a row. Knows probabilities; nothing of sequences, steps or
time. A choice is a function of the row, the parameters, the tokens seen lately and (seed,
position): nothing else, so that a stream can be repeated anywhere.

The order is logit_bias, penalties, top_k, top_p, min_p, temperature, and each cut keeps a prefix
of the tokens sorted by falling logit, ties by rising id. The noise of (seed, position) then picks
a point on the cumulated probabilities of what is left, in the same order.
"""

from __future__ import annotations

import math

import numpy as np

from dllama.engine.noise import uniform
from dllama.engine.penalties import TokenCounts, edit_listed, edit_row, n_lowered
from dllama.errors import DllamaError, RequestError
from dllama.requests import SamplingParams
from dllama.step import MAX_CANDIDATES, LogitRow

_N_BINS = 2048  # so that a bin of a bell-shaped row of 128k logits holds a few hundred
_SORT_AT_ONCE = 2048  # below this a plain sort costs less than putting logits in bins
_DEEPEST = 50.0  # exp(-50) of the best token's probability: all beyond shares the last bin
_MAX_INVERSE_TEMPERATURE = 1e30  # keeps logit / temperature finite for any temperature above 0


def candidates_wanted(params: SamplingParams) -> int:
    """How many of a row's largest logits the choice needs, 1..MAX_CANDIDATES; 0 for the row.

    Bias and penalties that only lower logits can push at most so many tokens out of the best k,
    and what moves up is found right behind them.
    """
    kept = 1 if params.temperature == 0.0 else params.top_k
    lowered = n_lowered(params)
    if kept == 0 or lowered is None or kept + lowered > MAX_CANDIDATES:
        return 0
    return kept + lowered


def sample(
    row: LogitRow, params: SamplingParams, position: int, seen: TokenCounts | None = None
) -> int:
    """The token for `position` (counted from the first token of the prompt).

    The row is whole or holds at least `candidates_wanted(params)` entries (or all there are).
    Raises DllamaError where the logits are no numbers, RequestError where logit_bias forbids
    every token.
    """
    if not math.isfinite(row.log_sum_exp):
        raise DllamaError(
            "the model's logits are not numbers (their log-sum-exp is "
            f"{row.log_sum_exp}); the weights are damaged or unfit for this engine, load the "
            "model file anew or use another one"
        )
    n_kept = 1 if params.temperature == 0.0 else params.top_k
    if row.ids is None:
        logits = edit_row(row.logits, params, seen)
        if n_kept == 0:
            return _draw_whole(logits, params, uniform(params.seed, position))
        ids = np.array([logits.argmax()]) if n_kept == 1 else largest(logits, n_kept)
        logits = logits[ids]
    else:
        assert n_kept > 0, "a choice among all tokens needs the whole row"
        ids, logits = _best_listed(row.ids, row.logits, n_kept, params, seen)
    _refuse_nothing(float(logits[0]))
    if len(ids) == 1:
        return int(ids[0])
    return _draw_sorted(ids, logits, params, uniform(params.seed, position))


def largest(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids (k,) of the k largest of logits (n,), by falling logit, ties by rising id."""
    n = len(logits)
    if k >= n:
        return _sorted_order(logits)
    pool = logits
    n_columns = n // 16
    if 4 * k < n_columns:
        # The k-th largest of the columns' maxima is reached by at least k logits, by few more.
        pool = logits[: n_columns * 16].reshape(16, n_columns).max(axis=0)
    floor = np.partition(pool, len(pool) - k)[len(pool) - k]
    ids = np.flatnonzero(logits >= floor)
    best: np.ndarray = ids[_sorted_order(logits[ids])[:k]]
    return best


def _best_listed(
    ids: np.ndarray,
    logits: np.ndarray,
    n_kept: int,
    params: SamplingParams,
    seen: TokenCounts | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best n_kept of a sorted list of candidates once bias and penalties were applied."""
    if params.logit_bias or seen is not None:
        logits = edit_listed(ids, logits, params, seen)
        order = np.lexsort((ids, -logits))[:n_kept]
        return ids[order], logits[order]
    return ids[:n_kept], logits[:n_kept]


def _draw_sorted(ids: np.ndarray, logits: np.ndarray, params: SamplingParams, u: float) -> int:
    """One of `ids` (k,), whose `logits` (k,) fall, after top_p, min_p and temperature."""
    x = logits.astype(np.float64)
    x -= x[0]
    n = len(x)
    if params.top_p < 1.0:
        mass = np.exp(x).cumsum()
        n = int(mass.searchsorted(params.top_p * mass[-1])) + 1
    if params.min_p > 0.0:
        n = min(n, int(np.count_nonzero(x >= math.log(params.min_p))))
    if n == 1:
        return int(ids[0])
    mass = np.exp(x[:n] * _inverse_temperature(params)).cumsum()
    return int(ids[mass.searchsorted(u * mass[-1])])  # u < 1, so that the index is below n


def _draw_whole(logits: np.ndarray, params: SamplingParams, u: float) -> int:
    """The same from all logits (n,) in order of id, without sorting more than it must."""
    top = float(logits.max())
    _refuse_nothing(top)
    x = logits.astype(np.float64)
    x -= top
    ids, kept = _cut_whole(x, params)
    if ids is not None:
        x = x[ids]
    x *= _inverse_temperature(params)
    weights = np.exp(x)
    if kept is not None:
        weights *= kept
    index = int(_prefix(x, weights, u * float(weights.sum()))[1][-1])
    return index if ids is None else int(ids[index])


def _cut_whole(
    x: np.ndarray, params: SamplingParams
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What min_p and top_p leave of x (n,), whose largest is 0: the ids that min_p leaves,
    rising, and among these a mask of what top_p leaves. None for all."""
    ids = np.flatnonzero(x >= math.log(params.min_p)) if params.min_p > 0.0 else None
    if params.top_p >= 1.0:
        return ids, None
    weights = np.exp(x)
    target = params.top_p * float(weights.sum())
    if ids is not None:
        x, weights = x[ids], weights[ids]
        if float(weights.sum()) <= target:
            return ids, None  # min_p cuts before top_p would
    kept, last = _prefix(x, weights, target)
    kept[last] = True
    return ids, kept


def _prefix(x: np.ndarray, weights: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
    """The shortest prefix of the entries, sorted by falling x, whose weights add to `target`.

    x and weights are (n,) float64, the largest x is 0. Returns the prefix in two parts: a mask
    (n,) of the earlier entries, and the indices of the later ones, sorted and never empty. Only
    these are ever sorted: they are one bin of near logits, found by adding weights bin by bin.
    """
    if len(x) <= _SORT_AT_ONCE:
        return np.zeros(len(x), np.bool_), _until(_sorted_order(x), weights, 0.0, target)
    depth = max(min(-float(x.min()), _DEEPEST), 1e-300)
    scaled = x * (-(_N_BINS - 1) / depth)
    np.minimum(scaled, _N_BINS - 1, out=scaled)  # in place: fresh pages cost more than the sum
    bins = scaled.astype(np.int64)
    mass = np.bincount(bins, weights, _N_BINS).cumsum()
    crossing = min(int(mass.searchsorted(target)), int(bins.max()))
    inside = np.flatnonzero(bins == crossing)
    order = inside[_sorted_order(x[inside])]
    before = float(mass[crossing - 1]) if crossing else 0.0
    return bins < crossing, _until(order, weights, before, target)


def _until(order: np.ndarray, weights: np.ndarray, before: float, target: float) -> np.ndarray:
    """`order` as far as the weights, on top of `before`, reach `target`; at least one of it."""
    mass = before + weights[order].cumsum()
    return order[: int(mass.searchsorted(target)) + 1]


def _sorted_order(logits: np.ndarray) -> np.ndarray:
    """The indices that sort `logits` (n,) by falling value, ties by rising index."""
    order: np.ndarray = np.argsort(-logits, kind="stable")
    return order


def _inverse_temperature(params: SamplingParams) -> float:
    return min(1.0 / params.temperature, _MAX_INVERSE_TEMPERATURE)


def _refuse_nothing(top: float) -> None:
    """Raises RequestError where even the best logit is minus infinity."""
    if top == -math.inf:
        raise RequestError(
            "logit_bias forbids every token there is, so that none can be chosen; "
            "leave at least one token without a bias of minus infinity",
            param="logit_bias",
        )
