"""Requests for models, and what a scheduler wants to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request gets no model; `retry_after_s` None: it never will as things are."""

    message: str
    retry_after_s: float | None = None


@dataclass(eq=False, slots=True)
class Ticket:
    """A request for a model. It is settled once it `is_granted`, which is a lease of the model that
    has to be released, or has a `refusal`. One that only loads the model gets no lease."""

    name: str
    asked_s: float
    only_loads: bool = False
    is_granted: bool = False
    refusal: Refusal | None = None

    @property
    def is_settled(self) -> bool:
        return self.is_granted or self.refusal is not None


class Act(StrEnum):
    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True)
class Command:
    act: Act
    name: str
