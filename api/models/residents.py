"""What is known of each model of a router: its phase, who uses it, and when. Pure: the clock is an
argument everywhere."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_TURN_S = 30.0  # a model that was just loaded serves so long, or as long as its load took


class Phase(StrEnum):
    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    LEAVING = "leaving"  # its engine ends, and holds its memory until then


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model could not be loaded, or died. Before `retry_s` it is not tried again;
    `n_in_row` failures came without a success in between."""

    reason: str
    retry_s: float
    n_in_row: int


@dataclass(slots=True)
class Resident:
    """One model. Times are seconds of the scheduler's clock."""

    name: str
    is_pinned: bool = False  # it leaves only by hand
    idle_s: float | None = None  # without work until it sleeps; None: never
    stop_s: float = 10.0  # that answers may go on after it was unloaded by hand
    need_bytes: int = 0  # on all nodes
    phase: Phase = Phase.UNLOADED
    n_leases: int = 0  # requests that use it
    n_loads: int = 0  # since the start
    used_s: float = -math.inf  # the last use
    load_began_s: float = 0.0
    loaded_s: float = 0.0
    keep_s: float | None = None  # as idle_s, by the last request that said so
    has_own_keep: bool = False  # keep_s counts, not idle_s
    is_asleep: bool = False  # unloaded for want of work
    leave_by_s: float | None = None  # unloaded by hand: no request may use it any more
    not_before_s: float = -math.inf  # memory is about to come free for it
    is_short: bool = False  # its engine ends for want of memory, and gives none back
    failure: Failure | None = None

    @property
    def sleeps_at_s(self) -> float:
        """Returns when it has been without work for too long; infinite: never."""
        kept_s = self.keep_s if self.has_own_keep else self.idle_s
        return math.inf if self.is_pinned or kept_s is None else self.used_s + kept_s

    def sleeps_in_s(self, now_s: float) -> float:
        """Returns the seconds until then, were nobody to use it from now on."""
        return self.sleeps_at_s - (self.used_s if self.n_leases else now_s)

    def is_idle_too_long(self, now_s: float) -> bool:
        is_idle = self.phase is Phase.LOADED and not self.n_leases
        return is_idle and now_s >= self.sleeps_at_s

    @property
    def is_to_stay(self) -> bool:
        """Returns whether it is loaded or loads, and nobody has unloaded it since."""
        return self.phase in (Phase.LOADING, Phase.LOADED) and self.leave_by_s is None

    @property
    def is_busy(self) -> bool:
        return self.phase is Phase.LOADING or self.n_leases > 0

    @property
    def turn_ends_s(self) -> float:
        """Returns the time from which on it gives way to others although it is busy: it serves for
        as long as its load took, so that a server never spends most of its time on loading."""
        if self.phase is Phase.LOADING:
            return math.inf
        return self.loaded_s + min(self.loaded_s - self.load_began_s, MAX_TURN_S)


@dataclass(frozen=True, slots=True)
class Limits:
    """What all models together may take: `max_models` of them (0: any number), and bytes of
    memory."""

    max_models: int
    memory_bytes: int

    def hold(self, residents: Collection[Resident]) -> bool:
        is_few = not self.max_models or len(residents) <= self.max_models
        return is_few and sum(one.need_bytes for one in residents) <= self.memory_bytes


def victims_for(
    wanted: Resident, loaded: Sequence[Resident], limits: Limits
) -> list[Resident] | None:
    """Returns the models that have to leave so that `wanted` can be loaded: idle ones first, then
    those used least recently, and as few as can be. None where it has no room even then.

    `loaded` are those that are loaded or load."""

    def fits(victims: Iterable[Resident]) -> bool:
        gone = {one.name for one in victims}
        return limits.hold([wanted, *(one for one in loaded if one.name not in gone)])

    candidates = [one for one in loaded if not one.is_pinned]
    candidates.sort(key=lambda one: (one.phase is Phase.LOADING, one.is_busy, one.used_s))
    victims: list[Resident] = []
    while not fits(victims):
        if len(victims) == len(candidates):
            return None
        victims.append(candidates[len(victims)])
    for one in reversed(victims):  # the busiest and most recent are spared first
        others = [other for other in victims if other is not one]
        if fits(others):
            victims = others
    return victims
