"""What people call the samplers: llama.cpp's letters and the spellings that its clients use."""

from __future__ import annotations

from collections.abc import Sequence

from dllama.requests import SAMPLERS

DRY_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's, where nobody names any

LETTERS = {
    "e": "penalties", "d": "dry", "s": "top_n_sigma", "k": "top_k", "y": "typ_p", "p": "top_p",
    "m": "min_p", "x": "xtc", "t": "temperature",
}  # fmt: skip
_SPELLINGS = {
    **{name: name for name in SAMPLERS}, **{name.replace("_", "-"): name for name in SAMPLERS},
    **{name.replace("_", ""): name for name in SAMPLERS}, "nucleus": "top_p", "temp": "temperature",
    "typ": "typ_p", "typical": "typ_p", "typical_p": "typ_p", "typical-p": "typ_p",
}  # fmt: skip


def samplers_of_letters(letters: str) -> tuple[str, ...] | None:
    """The samplers that a text of letters stands for, in order; None where one is unknown."""
    return _all_of(LETTERS, list(letters))


def samplers_of_names(names: Sequence[object]) -> tuple[str, ...] | None:
    """The samplers under any of their names, in order; None where one is unknown."""
    return _all_of(_SPELLINGS, names)


def _all_of(table: dict[str, str], keys: Sequence[object]) -> tuple[str, ...] | None:
    found = [table.get(key) if isinstance(key, str) else None for key in keys]
    known = tuple(name for name in found if name is not None)
    return known if len(known) == len(keys) else None
