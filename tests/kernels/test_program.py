"""Recorded kernel calls do what the calls did, on whatever is in the arrays by then."""

from __future__ import annotations

import gc
import threading
from typing import NamedTuple

import numpy as np
import pytest

from kernels.emit.jit import kernel
from kernels.program import Program, launch, recording


class Flags(NamedTuple):
    up: bool
    twice: bool


@kernel
def _mixed(x, parts, flags, factor, small, n, nothing):
    first, (second, third) = parts
    up, twice = flags
    for i in range(n):
        value = np.float64(x[i, 0]) * factor + first[i] + second[0, i] * third
        if twice:
            value *= 2
        x[i, 1] = np.float32(value + small if up else value - small)
    if nothing.size:
        x[:, :] = 0


@kernel
def _double(x):
    for i in range(x.size):
        x[i] *= 2


@kernel
def _fail(x):
    if x[0] > 1:
        raise ValueError("too much")


def _expected(x, parts, flags, factor, small, n):  # type: ignore[no-untyped-def]
    first, (second, third) = parts
    value = x[:n, 0].astype(np.float64) * factor + first[:n] + second[0, :n] * third
    value = value * (2 if flags.twice else 1)
    return (value + small if flags.up else value - small).astype(np.float32)


@pytest.mark.parametrize("flags", [Flags(True, False), Flags(False, True)])
def test_a_program_makes_the_same_calls_again(flags: Flags) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 2)).astype(np.float32)
    parts = (rng.standard_normal(6), (np.arange(12, dtype=np.int32).reshape(1, 12)[:, ::2], -3))
    given = (x, parts, flags, 1.25, np.float32(0.5), 5, np.zeros(0, np.uint8))
    with recording() as calls:
        launch(_mixed, *given)
    direct = x[:, 1].copy()
    program = Program(calls)
    x[:, 1] = 0
    program.run()
    assert np.array_equal(x[:, 1], [*direct[:5], 0])
    x[:, 0] += 1
    program.run()
    np.testing.assert_allclose(x[:5, 1], _expected(x, parts, flags, 1.25, 0.5, 5), rtol=1e-6)


def test_calls_come_in_their_order_and_arrays_stay() -> None:
    kept = np.ones(4, np.int64)
    with recording() as calls:
        launch(_double, kept)
        launch(_double, kept[1:])
        launch(_double, np.ones(1000, np.int64))
    program = Program(calls)
    del calls
    gc.collect()
    for _ in range(3):
        program.run()
    assert kept.tolist() == [2**4, 4**4, 4**4, 4**4]


def test_nothing_is_recorded_by_others_or_afterwards() -> None:
    x = np.ones(1, np.int64)
    with recording() as calls:
        other = threading.Thread(target=launch, args=(_double, x))
        other.start()
        other.join()
    launch(_double, x)
    assert calls == [] and x[0] == 4
    Program(calls).run()


def test_a_kernel_that_fails_is_told() -> None:
    x = np.ones(1, np.int64)
    with recording() as calls:
        launch(_fail, x)
    program = Program(calls)
    program.run()
    x[0] = 2
    with pytest.raises(RuntimeError, match="a kernel failed"):
        program.run()


def test_what_has_no_fixed_place_is_refused() -> None:
    @kernel
    def count(items):
        return len(items)

    with pytest.raises(TypeError, match="a str cannot be an argument of a kernel"):
        launch(count, "text")
