"""Numbers of bytes for people."""

from __future__ import annotations


def size_of(n_bytes: object) -> str:
    """Returns a number of bytes for people, in units of 1000."""
    value = float(n_bytes) if isinstance(n_bytes, int | float) else 0.0
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.{1 if value < 100 * size else 0}f} {unit}"
    return f"{value:.0f} B"
