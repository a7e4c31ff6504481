"""Noise without a state: one uniform number per (seed, position, stream), the same wherever and
however often it is asked for. Knows nothing of tokens.

Source: the counter-based generator Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel
random numbers: as easy as 1, 2, 3" (SC 2011), with the constants of the Random123 library.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_MULTIPLY_0 = 0xD2511F53
_MULTIPLY_1 = 0xCD9E8D57
_WEYL_0 = 0x9E3779B9  # the golden ratio
_WEYL_1 = 0xBB67AE85  # sqrt(3) - 1
_ROUNDS = 10


def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Four random words of 32 bits for a counter of four words and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = _MULTIPLY_0 * c0
        p1 = _MULTIPLY_1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _WEYL_0) & _MASK
        k1 = (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def uniform(seed: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) with 53 random bits. The key is the seed, the counter the position; of
    both the lowest 64 bits count. Another `stream` gives numbers that have nothing in common."""
    high, low, _, _ = philox4x32(
        (position & _MASK, position >> 32 & _MASK, stream, 0),
        (seed & _MASK, seed >> 32 & _MASK),
    )
    return ((high >> 5) * 67108864.0 + (low >> 6)) / 9007199254740992.0
