"""Addresses of arrays' items are those that NumPy says."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import addresses
from kernels.addresses import address_of
from kernels.arrays import aligned, huge

ITEMS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


@pytest.mark.parametrize(
    "array",
    [
        ITEMS, ITEMS[1:, ::2, 3:], ITEMS.T, ITEMS[:, :0], ITEMS[::-1], np.zeros(()),
        np.frombuffer(b"12345678", np.int32), aligned((3, 7), np.float32), huge((2, 3 << 20)),
        ITEMS.view("S2"), np.ma.zeros(4), np.zeros(3).view(np.recarray),
    ],
)  # fmt: skip
def test_an_address_is_the_one_numpy_says(array: np.ndarray) -> None:
    assert address_of(array) == array.ctypes.data


def test_this_interpreter_reads_it() -> None:
    assert addresses.address_of is addresses._read


def test_another_interpreter_asks_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses.sys.implementation, "name", "pypy")
    assert not addresses._can_read()
