"""The ways in which the two halves of a feed-forward's first product become one, by number."""

from __future__ import annotations

from enum import IntEnum


class Gate(IntEnum):
    SILU = 0  # silu(gate) * up
    CLAMPED = 1  # gpt-oss: of halves that are cut off, with a sharper sigmoid, and up + 1
    GELU = 2  # gelu(gate) * up, with tanh for the error function
