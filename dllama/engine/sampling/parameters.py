"""The vocabulary in which SamplingParams (dllama/requests.py) describes its numbers: what the
engine accepts, what a request may set, and what the command line says about it.

The API, the wire, the command line and the engine's checks read these descriptions.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a number, for `Annotated`: `low` to `high` for the engine; `help` describes the
    flag. A requested value outside means the nearest one inside, but is refused below `low` if the
    range `is_hard`: nothing near it means the same."""

    low: float
    high: float
    help: str
    is_hard: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric field of SamplingParams: its name, type, default and bounds."""

    name: str
    type: type[int] | type[float]
    default: float
    bounds: Bounds

    @property
    def flag(self) -> str:
        """Its flag on the command line."""
        return f"--{self.name.replace('_', '-')}"


def numbers_of(params: type) -> tuple[Number, ...]:
    """The fields of a dataclass that are annotated with Bounds, in their order."""
    hints = get_type_hints(params, include_extras=True)
    numbers = []
    for field in fields(params):
        hint = hints[field.name]
        if get_origin(hint) is not Annotated:
            continue
        kind, *extras = get_args(hint)
        for bounds in extras:
            if isinstance(bounds, Bounds):
                assert field.default is not MISSING, f"{field.name} needs a default"
                numbers.append(Number(field.name, kind, field.default, bounds))
    return tuple(numbers)
