"""The pool of tokens that samplers have left, and its order by falling logit, ties by rising id,
with no more sorting than a question needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_N_BINS = 2048  # so that a bin of a bell-shaped row of 128k logits holds a few hundred
_SORT_AT_ONCE = 2048  # up to here a plain sort is faster than binning
_DEEPEST = 50.0  # logits further below the best one share the last bin
_LIKELY = 6.0  # tokens this close to the best one hold most of a typical row's probability


@dataclass(frozen=True, slots=True)
class TokenPool:
    """n >= 1 tokens and their logits, all of them finite.

    `ids` (n,) are the tokens, in order if `is_sorted`, else rising; None stands for 0..n-1. `x`
    (n,) float64 are their logits less `top`, the largest.
    """

    ids: np.ndarray | None
    x: np.ndarray
    top: float
    is_sorted: bool

    def __len__(self) -> int:
        return len(self.x)

    def token(self, index: int) -> int:
        return index if self.ids is None else int(self.ids[index])

    def token_ids(self) -> np.ndarray:
        return np.arange(len(self.x)) if self.ids is None else self.ids

    def probabilities(self) -> np.ndarray:
        """(n,) float64, adding to 1."""
        weights: np.ndarray = np.exp(self.x)
        weights /= weights.sum()
        return weights

    def only(self, index: np.ndarray, *, is_sorted: bool | None = None) -> TokenPool:
        """The tokens at the places `index`: rising places, or with `is_sorted` places in order."""
        ids = index if self.ids is None else self.ids[index]
        x = self.x[index]
        return _based(ids, x, self.top, self.is_sorted if is_sorted is None else is_sorted)

    def first(self, n: int) -> TokenPool:
        """The first n of a sorted pool."""
        ids = None if self.ids is None else self.ids[:n]
        return TokenPool(ids, self.x[:n], self.top, self.is_sorted)

    def best(self, n: int) -> TokenPool:
        """The n best tokens, in order."""
        if self.is_sorted:
            return self.first(n)
        return self.only(largest(self.x, n), is_sorted=True)

    def sorted_if_small(self) -> TokenPool:
        """The same tokens in order, unless there are too many to sort them without need."""
        if self.is_sorted or len(self.x) > _SORT_AT_ONCE:
            return self
        return self.only(_sorted_order(self.x), is_sorted=True)


def pool_of(ids: np.ndarray | None, logits: np.ndarray, *, is_sorted: bool) -> TokenPool | None:
    """A pool of the tokens whose logits (n,) are above minus infinity; None without any."""
    possible = logits > -np.inf
    if not possible.all():
        ids = np.flatnonzero(possible) if ids is None else ids[possible]
        logits = logits[possible]
    if not len(logits):
        return None
    return _based(ids, logits.astype(np.float64), 0.0, is_sorted)


def _based(ids: np.ndarray | None, x: np.ndarray, top: float, is_sorted: bool) -> TokenPool:
    best = float(x[0] if is_sorted else x.max())
    return TokenPool(ids, x - best if best else x, top + best, is_sorted)


def largest(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids (k,) of the k largest of logits (n,), in order."""
    n = len(logits)
    if k >= n:
        return _sorted_order(logits)
    pool = logits
    n_columns = n // 16
    if 4 * k < n_columns:
        # At least k logits reach the k-th largest of the columns' maxima, and few more.
        pool = logits[: n_columns * 16].reshape(16, n_columns).max(axis=0)
    floor = np.partition(pool, len(pool) - k)[len(pool) - k]
    ids = np.flatnonzero(logits >= floor)
    best: np.ndarray = ids[_sorted_order(logits[ids])[:k]]
    return best


def likely_prefix(x: np.ndarray, weights: np.ndarray, target: float) -> tuple[np.ndarray, int]:
    """The shortest prefix as `prefix` finds it, looking first only at tokens near the best: its
    places (m,), rising, and the place of its last token."""
    near = np.flatnonzero(x >= -_LIKELY) if len(x) > _SORT_AT_ONCE else np.zeros(0, np.int64)
    if len(near) == 0 or len(near) == len(x) or float(weights[near].sum()) < target:
        kept, later = prefix(x, weights, target)
        kept[later] = True
        return np.flatnonzero(kept), int(later[-1])
    kept, later = prefix(x[near], weights[near], target)
    kept[later] = True
    return near[kept], int(near[later[-1]])


def prefix(x: np.ndarray, weights: np.ndarray, target: float) -> tuple[np.ndarray, np.ndarray]:
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


def draw(pool: TokenPool, u: float) -> int:
    """Samples a token: its place in the pool, where the cumulative probability of the tokens in
    order reaches u, 0 <= u < 1."""
    if len(pool) == 1:
        return 0
    weights = np.exp(pool.x)
    if pool.is_sorted:
        mass = weights.cumsum()
        return min(int(mass.searchsorted(u * mass[-1])), len(pool) - 1)
    return likely_prefix(pool.x, weights, u * float(weights.sum()))[1]


def _until(order: np.ndarray, weights: np.ndarray, before: float, target: float) -> np.ndarray:
    """The beginning of `order` whose weights, added to `before`, reach `target`; not empty."""
    mass = before + weights[order].cumsum()
    return order[: int(mass.searchsorted(target)) + 1]


def _sorted_order(logits: np.ndarray) -> np.ndarray:
    """The indices that sort `logits` (n,) by falling value, ties by rising index."""
    order: np.ndarray = np.argsort(-logits, kind="stable")
    return order
