"""Where an array's items are in memory, in a tenth of the time that NumPy takes to say so."""

from __future__ import annotations

import ctypes
import sys

import numpy as np

_POINTER_AT = object.__basicsize__
"""NumPy's array begins with CPython's header of an object, and behind it has the pointer to its
items (`PyArrayObject_fields` in NumPy's ndarraytypes.h, part of its binary interface)."""


def _said(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def _read(array: np.ndarray) -> int:
    return ctypes.c_size_t.from_address(id(array) + _POINTER_AT).value


def _can_read() -> bool:
    """Whether the pointer is where it is expected: in CPython, where an object's id is its address,
    for arrays that own their items, for views and for empty ones."""
    if sys.implementation.name != "cpython":
        return False
    items = np.zeros((3, 5), np.float32)
    probes = (items, items[1:, 2:], items.T, items[:0], np.frombuffer(b"read only", np.uint8))
    return all(_read(probe) == _said(probe) for probe in probes)


address_of = _read if _can_read() else _said
"""The address of an array's first item: 2.6 microseconds of Python, 40 times a half layer, when
NumPy is asked; 0.14 when its pointer is read."""
