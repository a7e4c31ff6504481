"""The names of the samplers, in the order in which they are applied by default; table.py has what
each does. Parsers of flags and requests read these, and need no NumPy for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_CHAIN = 64  # samplers of one request; each runs once for every time it is named


class SamplerName(NamedTuple):
    """A sampler's name in `samplers`, its letter (llama.cpp's), and other spellings of it."""

    name: str
    letter: str
    aliases: tuple[str, ...] = ()


SAMPLER_NAMES = (
    SamplerName("penalties", "e"),
    SamplerName("dry", "d"),
    SamplerName("top_n_sigma", "s"),
    SamplerName("top_k", "k"),
    SamplerName("typ_p", "y", ("typ", "typical", "typical_p", "typical-p")),
    SamplerName("top_p", "p", ("nucleus",)),
    SamplerName("min_p", "m"),
    SamplerName("eta_cutoff", "h", ("eta",)),
    SamplerName("xtc", "x"),
    SamplerName("temperature", "t", ("temp",)),
)
DEFAULT_ORDER = tuple(sampler.name for sampler in SAMPLER_NAMES)
LETTERS = {sampler.letter: sampler.name for sampler in SAMPLER_NAMES}
_SPELLINGS = {
    spelling: sampler.name
    for sampler in SAMPLER_NAMES
    for spelling in (
        sampler.name,
        sampler.name.replace("_", "-"),
        sampler.name.replace("_", ""),
        *sampler.aliases,
    )
}


def samplers_of_letters(letters: str) -> tuple[str, ...] | None:
    """Returns the names of the samplers that `letters` stand for, in order; None if one is
    unknown."""
    return _all_of(LETTERS, list(letters))


def samplers_of_names(names: Sequence[object]) -> tuple[str, ...] | None:
    """Returns the names of the samplers under any of their spellings; None if one is unknown."""
    return _all_of(_SPELLINGS, names)


def _all_of(table: dict[str, str], keys: Sequence[object]) -> tuple[str, ...] | None:
    found = [table.get(key) if isinstance(key, str) else None for key in keys]
    known = tuple(name for name in found if name is not None)
    return known if len(known) == len(keys) else None
