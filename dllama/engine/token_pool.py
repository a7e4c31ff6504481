"""The tokens among which a choice is still open, and how they are put in order without sorting
more of them than a question needs. The order is by falling logit, ties by rising id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_N_BINS = 2048  # so that a bin of a bell-shaped row of 128k logits holds a few hundred
_SORT_AT_ONCE = 2048  # below this a plain sort costs less than putting logits in bins
_DEEPEST = 50.0  # exp(-50) of the best token's probability: all beyond shares the last bin
_LIKELY = 6.0  # tokens within exp(-6) of the best one hold most of a usual row's probability


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
        """The tokens at the places `index`, which rise unless `is_sorted` says that they are in
        order."""
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
        """The same in order, unless it is too large to be sorted without need."""
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
        # The k-th largest of the columns' maxima is reached by at least k logits, by few more.
        pool = logits[: n_columns * 16].reshape(16, n_columns).max(axis=0)
    floor = np.partition(pool, len(pool) - k)[len(pool) - k]
    ids = np.flatnonzero(logits >= floor)
    best: np.ndarray = ids[_sorted_order(logits[ids])[:k]]
    return best


def likely_prefix(x: np.ndarray, weights: np.ndarray, target: float) -> tuple[np.ndarray, int]:
    """`prefix` where the tokens that are far from the best hardly count: the places (m,) of the
    prefix, rising, and the last of them in order."""
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
    """The place in the pool of the token at the point u, 0 <= u < 1, on the cumulated
    probabilities of the tokens in order."""
    if len(pool) == 1:
        return 0
    weights = np.exp(pool.x)
    if pool.is_sorted:
        mass = weights.cumsum()
        return min(int(mass.searchsorted(u * mass[-1])), len(pool) - 1)
    return likely_prefix(pool.x, weights, u * float(weights.sum()))[1]


def _until(order: np.ndarray, weights: np.ndarray, before: float, target: float) -> np.ndarray:
    """`order` as far as the weights, on top of `before`, reach `target`; at least one of it."""
    mass = before + weights[order].cumsum()
    return order[: int(mass.searchsorted(target)) + 1]


def _sorted_order(logits: np.ndarray) -> np.ndarray:
    """The indices that sort `logits` (n,) by falling value, ties by rising index."""
    order: np.ndarray = np.argsort(-logits, kind="stable")
    return order
