"""Searches for the scales, and the minima, of sixteen blocks at a time.

Each try rounds the values with one guess of the scale. Least squares then give the scale that fits
these levels best, and what remains of the weighted squares says which try was the best. The last
tries begin with the best scale so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kernels.emit.vectors import Value
from kernels.encoding.lanes import Found, Lanes, Sum, Tile, larger, smaller, tries, where

SCALE, MINIMUM, INVERSE = 0, 1, 2  # rows of what is found
N_ROWS = 3
LEAST = -3.0e38
REFINEMENTS = 2
NEARLY_ONE_LEVEL = 1e-5  # below: the levels of a block are all the same, but for rounding

LevelOf = Callable[[Lanes], Lanes]  # the nearest level of values in units of the scale


def best_scale_and_minimum(
    tile: Tile, found: Found, *, most: int, guesses: Sequence[float],
    weigh: Callable[[Lanes, Lanes], Lanes],
) -> None:  # fmt: skip
    """Finds x = scale * level + minimum with levels 0 to `most` and a minimum up to 0. `guesses`
    are numbers of steps between both ends; `weigh` gives the weights of values, from them and the
    root of their mean square."""
    e = tile.e
    low, high, squares = Sum(e), Sum(e, LEAST), Sum(e)
    with tile.each() as x:
        low.set(smaller(x, low.get()))
        high.set(larger(x, high.get()))
        squares.add(x * x)
    least, spread = low.get(), high.get() - low.get()
    mean = (squares.get() * (1 / tile.n_values)).square_root()
    weights, values = Sum(e), Sum(e)
    with tile.each() as x:
        weight = weigh(x, mean)
        weights.add(weight)
        values.add(weight * x)
    best = _BestLine(tile, weights.get(), values.get(), least, lambda x: weigh(x, mean), most)
    with tries(e, guesses, REFINEMENTS) as choose:
        inverse = choose(lambda n: n * spread.inverse(), best.scale.get().inverse())
        best.consider(inverse, choose(lambda n: least, best.minimum.get()))
    found.set(SCALE, best.scale.get())
    found.set(MINIMUM, best.minimum.get())


class _BestLine:
    """The best scale and minimum so far. What they take off the weighted squares is their gain."""

    def __init__(
        self, tile: Tile, weights: Lanes, values: Lanes, least: Lanes, weigh: LevelOf, most: int
    ) -> None:
        """`weights` and `values` are the sums of the weights and of the weighted values."""
        self._tile, self._weigh, self._most = tile, weigh, most
        self._weights, self._values = weights, values
        self.scale, self.minimum = Sum(tile.e), Sum(tile.e, least)
        self._gain = Sum(tile.e, least * (values + values - least * weights))

    def consider(self, inverse: Lanes, minimum: Lanes) -> None:
        """Fits the levels that values get by a guess, and keeps what fits better than before."""
        e, most = self._tile.e, self._most
        levels, squares, products = Sum(e), Sum(e), Sum(e)
        with self._tile.each() as x:
            level = ((x - minimum) * inverse).rounded().clamped(0, most)
            weighted = self._weigh(x) * level
            levels.add(weighted)
            squares.add(weighted * level)
            products.add(weighted * x)
        n, n2, nx = levels.get(), squares.get(), products.get()
        w, wx = self._weights, self._values
        determinant = w * n2 - n * n
        scale, fitted = (w * nx - wx * n) / determinant, (n2 * wx - n * nx) / determinant
        is_line = determinant > w * n2 * NEARLY_ONE_LEVEL
        has_minimum = e.b.and_(is_line, fitted < 0.0)
        scale = where(has_minimum, scale, nx / n2)
        fitted = where(has_minimum, fitted, 0.0)
        gain = scale * nx + fitted * wx
        self._keep(gain > self._gain.get(), gain, scale, fitted)

    def _keep(self, is_better: Value, gain: Lanes, scale: Lanes, minimum: Lanes) -> None:
        self._gain.set(where(is_better, gain, self._gain.get()))
        self.scale.set(where(is_better, scale, self.scale.get()))
        self.minimum.set(where(is_better, minimum, self.minimum.get()))


def best_scale(tile: Tile, found: Found, *, ends: Sequence[float], level_of: LevelOf) -> None:
    """Finds x = scale * level. In each try the value furthest from 0 is put to one of `ends`.
    Values weigh as much as their squares."""
    e = tile.e
    by = furthest(tile).inverse()
    best, best_gain = Sum(e), Sum(e)
    with tries(e, ends, REFINEMENTS) as choose:
        inverse = choose(lambda end: end * by, best.get().inverse())
        squares, products = Sum(e), Sum(e)
        with tile.each() as x:
            level = level_of(x * inverse)
            weighted = x * x * level
            squares.add(weighted * level)
            products.add(weighted * x)
        scale = products.get() / squares.get()
        gain = scale * products.get()
        is_better = gain > best_gain.get()
        best_gain.set(where(is_better, gain, best_gain.get()))
        best.set(where(is_better, scale, best.get()))
    found.set(SCALE, best.get())


def furthest(tile: Tile) -> Lanes:
    """The value of each block that is furthest from 0, the first of equal ones."""
    top = Sum(tile.e)
    with tile.each() as x:
        top.set(where(abs(x) > abs(top.get()), x, top.get()))
    return top.get()
