"""Vectors of sixteen float32, one of each block that is encoded at the same time, with Python's
operators. Sums go over the values of a block, so their order is the same on every processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

from kernels.emit.emitter import Emit
from kernels.emit.vectors import F32, F32X16, Value
from kernels.weights.raw_rows import Rows

N_LANES = 16
ROW_BYTES = 4 * N_LANES
WORDS = 4  # of each block, which are transposed together
ROUND = 12582912.0  # 1.5 * 2^23: adding it leaves the nearest integer, ties to even


class Lanes:
    """A vector within emitted code. Numbers beside it stand for all lanes."""

    def __init__(self, e: Emit, value: Value) -> None:
        self.e, self.value = e, value

    def _of(self, other: Lanes | float) -> Value:
        if isinstance(other, Lanes):
            return other.value
        return self.e.constant(F32X16, other)

    def _joined(self, operation: str, other: Lanes | float) -> Lanes:
        return Lanes(self.e, getattr(self.e.b, operation)(self.value, self._of(other)))

    def __add__(self, other: Lanes | float) -> Lanes:
        return self._joined("fadd", other)

    def __sub__(self, other: Lanes | float) -> Lanes:
        return self._joined("fsub", other)

    def __mul__(self, other: Lanes | float) -> Lanes:
        return self._joined("fmul", other)

    def __truediv__(self, other: Lanes | float) -> Lanes:
        return self._joined("fdiv", other)

    def __neg__(self) -> Lanes:
        return Lanes(self.e, self.e.b.fneg(self.value))

    def __abs__(self) -> Lanes:
        return self._called("fabs")

    def __gt__(self, other: Lanes | float) -> Value:
        return self.e.b.fcmp_ordered(">", self.value, self._of(other))

    def __lt__(self, other: Lanes | float) -> Value:
        return self.e.b.fcmp_ordered("<", self.value, self._of(other))

    def is_zero(self) -> Value:
        return self.e.b.fcmp_ordered("==", self.value, self._of(0.0))

    def _called(self, name: str) -> Lanes:
        function = self.e.declare(f"llvm.{name}.v16f32", F32X16, [F32X16])
        return Lanes(self.e, self.e.b.call(function, [self.value]))

    def square_root(self) -> Lanes:
        return self._called("sqrt")

    def truncated(self) -> Lanes:
        """The integers towards zero."""
        return self._called("trunc")

    def rounded(self) -> Lanes:
        """The nearest integers, ties to even, of values up to 2^22."""
        return self + ROUND - ROUND

    def clamped(self, low: float, high: float) -> Lanes:
        return smaller(larger(self, low), high)

    def inverse(self) -> Lanes:
        """One by each, and 0 by 0."""
        return where(self.is_zero(), self, Lanes(self.e, self._of(1.0)) / self)


def where(mask: Value, yes: Lanes, no: Lanes | float) -> Lanes:
    """`yes` in the lanes of the mask, `no` in the others; or one of both, by a single flag."""
    return Lanes(yes.e, yes.e.b.select(mask, yes.value, yes._of(no)))


def larger(a: Lanes, b: Lanes | float) -> Lanes:
    return where(a > b, a, b)


def smaller(a: Lanes, b: Lanes | float) -> Lanes:
    return where(a < b, a, b)


class Sum:
    """A vector that changes within loops."""

    def __init__(self, e: Emit, initial: Lanes | float = 0.0) -> None:
        self._e = e
        first = initial.value if isinstance(initial, Lanes) else e.constant(F32X16, initial)
        self._slot = e.variable(first)

    def get(self) -> Lanes:
        return Lanes(self._e, self._slot.get())

    def set(self, value: Lanes) -> None:
        self._slot.set(value.value)

    def add(self, value: Lanes) -> None:
        self.set(self.get() + value)


class Tile:
    """The values of sixteen blocks in memory: a row for each place in a block, a lane for each
    block."""

    def __init__(self, e: Emit, address: Value, n_values: int) -> None:
        self.e, self.n_values, self._address = e, n_values, address

    @contextmanager
    def each(self) -> Iterator[Lanes]:
        """Runs the body for each place in a block; yields its values."""
        e = self.e
        with e.loop(e.i64(self.n_values)) as index:
            yield Lanes(e, e.load(F32X16, self._row(index), ROW_BYTES))

    def fill(self, x: Value) -> None:
        """Emits the copy of sixteen blocks that follow each other from address x on."""
        e = self.e
        with e.loop(e.i64(self.n_values // WORDS)) as turn:
            first = e.b.add(x, e.b.mul(turn, e.i64(4 * WORDS)))
            blocks = [e.at(first, 4 * self.n_values * lane) for lane in range(N_LANES)]
            row = self._row(e.b.mul(turn, e.i64(WORDS)))
            for i, words in enumerate(Rows(e, blocks).words(0, WORDS)):
                e.store(words, e.at(row, ROW_BYTES * i), ROW_BYTES)

    def _row(self, index: Value) -> Value:
        return self.e.b.add(self._address, self.e.b.mul(index, self.e.i64(ROW_BYTES)))


class Found:
    """What is found for each of the sixteen blocks, in memory: rows of float32."""

    def __init__(self, e: Emit, address: Value) -> None:
        self._e, self._address = e, address

    def set(self, row: int, value: Lanes) -> None:
        self._e.store(value.value, self._e.at(self._address, ROW_BYTES * row), ROW_BYTES)

    def of_block(self, row: int, block: int) -> Lanes:
        """What is found for a block that is `block` lanes further on, in all lanes."""
        where = self._e.at(self._address, ROW_BYTES * row + 4 * block)
        return Lanes(self._e, self._e.load_splat_f32(where))


@contextmanager
def tries(e: Emit, guesses: Sequence[float], more: int) -> Iterator[Callable[..., Lanes]]:
    """Runs the body once for each guess, then `more` times; yields choose(of_guess, later): what a
    function makes of the guess, in all lanes, or in the last turns another vector."""
    kind = ir.VectorType(F32, len(guesses) + more)
    numbers = ir.Constant(kind, [*guesses, *[0.0] * more])
    with e.loop(e.i64(len(guesses) + more)) as index:
        guess = Lanes(e, e.splat(e.b.extract_element(numbers, index)))
        is_guess = e.b.icmp_signed("<", index, e.i64(len(guesses)))

        def choose(of_guess: Callable[[Lanes], Lanes], later: Lanes) -> Lanes:
            return where(is_guess, of_guess(guess), later)

        yield choose
