"""Decides which models of a router are loaded, which leave, and which requests wait for that.
Starts nothing, and the clock is an argument of every call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from api.models.residents import Failure, Limits, Phase, Resident, victims_for
from api.models.tickets import Act, Command, Refusal, Ticket

MAX_WAITING = 1024  # requests, of all models together
MAX_WAIT_S = 600.0  # of one request
FIRST_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0  # after failures in a row
SETTLE_S = 5.0  # memory of an engine that has ended comes free on all nodes
SETTLE_RETRY_S = 1.0
SHORT_S = 60.0  # for which a lack of memory that was met is remembered
BUSY_RETRY_S = 5.0


class LoadScheduler:
    """The models of a router, and the requests that wait for them in order of their arrival.

    Of the models that are asked for and missing only the first is loaded at a time. Whoever has to
    leave for it takes no new requests, which wait behind it, so that every model has its turn.
    After every other call `decide` says what is to be done now, and `due_s` when to ask again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._residents: dict[str, Resident] = {}
        self._waiting: list[Ticket] = []
        self._held: set[str] = set()  # they leave as soon as they are idle
        self._short: tuple[int, float] = (0, -math.inf)  # bytes that did not fit, until when
        self._ended_s = -math.inf  # the last engine's end

    # ---- the list
    def add(self, resident: Resident) -> None:
        """Adds a model; one of this name that is known keeps what it is doing."""
        known = self._residents.get(resident.name)
        if known is None:
            self._residents[resident.name] = resident
        else:
            known.is_pinned, known.idle_s = resident.is_pinned, resident.idle_s
            known.stop_s, known.failure = resident.stop_s, None

    def remove(self, name: str) -> None:
        """Forgets a model without an engine, for which nobody waits any more."""
        assert self._residents[name].phase is Phase.UNLOADED, name
        del self._residents[name]

    def refuse_waiting(self, name: str, reason: str = "") -> None:
        """Ends the waiting for a model that cannot be loaded any more: it is about to be removed,
        where no other reason is given."""
        gone = f"The model {name!r} was taken off the list; ask for another."
        self._refuse(name, Refusal(reason or gone))

    def resident(self, name: str) -> Resident:
        return self._residents[name]

    def names(self) -> list[str]:
        return list(self._residents)

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    # ---- requests
    def ask(self, name: str, need_bytes: int, now_s: float, *, only_loads: bool = False) -> Ticket:
        """Returns a ticket for a model that takes so much memory, settled at once where nobody has
        to wait. Call `decide` next."""
        resident = self._residents[name]
        if resident.phase is Phase.UNLOADED:
            resident.need_bytes = need_bytes
        ticket = Ticket(name, now_s, only_loads)
        failure = resident.failure
        if failure is not None and now_s < failure.retry_s:
            ticket.refusal = _told(name, failure, now_s)
        elif len(self._waiting) >= MAX_WAITING:
            ticket.refusal = Refusal(
                f"{MAX_WAITING} requests wait for models to be loaded, and the server keeps no "
                "more; ask again in a moment.", BUSY_RETRY_S,
            )  # fmt: skip
        else:
            self._waiting.append(ticket)
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Forgets a ticket that is not settled: its client has left."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)

    def hold(self, name: str) -> None:
        """Counts one more use of a model that is in use."""
        self._residents[name].n_leases += 1

    def release(self, name: str, now_s: float, keep_s: float | None = None) -> None:
        """Ends a lease. `keep_s` is how long the model stays without work from now on, infinite
        for ever, None as before."""
        resident = self._residents.get(name)
        if resident is None:
            return  # it was taken off the list
        resident.n_leases -= 1
        resident.used_s = now_s
        if keep_s is not None:
            resident.has_own_keep = True
            resident.keep_s = None if math.isinf(keep_s) else keep_s

    def cancel_load(self, name: str) -> bool:
        """Ends the waiting for a model that is about to be unloaded by hand: of those who asked for
        no more than its load, and while it loads of all. Returns whether anybody waited."""
        is_loading = self._residents[name].phase is Phase.LOADING
        return self._refuse(
            name,
            Refusal(
                f"The model {name!r} was unloaded by hand before it was loaded; send the request "
                "again where it is wanted all the same.", BUSY_RETRY_S,
            ),
            only_loads=not is_loading,
        )  # fmt: skip

    def unload(self, name: str, now_s: float) -> bool:
        """Has a model leave whatever its pin says, once its answers have ended, after `stop_s` at
        the latest. Returns whether there was anything to unload."""
        resident = self._residents[name]
        if resident.phase not in (Phase.LOADING, Phase.LOADED):
            return False
        if resident.leave_by_s is None:
            resident.leave_by_s = now_s + resident.stop_s
        return True

    # ---- what has become of commands
    def puts_back(self, name: str, need_bytes: int) -> bool:
        """Returns whether a model that is about to be loaded takes other memory than was thought;
        then it is not loaded, and another decision is due."""
        resident = self._residents[name]
        if resident.need_bytes == need_bytes:
            return False
        resident.need_bytes, resident.phase = need_bytes, Phase.UNLOADED
        return True

    def loaded(self, name: str, now_s: float) -> None:
        resident = self._residents[name]
        if resident.phase is Phase.LOADING:
            resident.phase = Phase.LOADED
            resident.loaded_s = resident.used_s = now_s
            resident.n_loads += 1
            resident.failure = None

    def failed(self, name: str, reason: str, now_s: float, *, is_short: bool = False) -> None:
        """Records that a model could not be loaded, or that its engine is gone for good; `ended`
        follows. `is_short`: there was less memory than was thought, so others leave for it."""
        resident = self._residents[name]
        was_loading = resident.phase is Phase.LOADING
        resident.phase = Phase.LEAVING
        resident.is_short = is_short and was_loading
        if resident.is_short:
            others = [one for one in self._occupants() if one is not resident]
            if any(not one.is_pinned for one in others):
                too_much = sum(one.need_bytes for one in others) + resident.need_bytes
                self._short = (too_much, now_s + SHORT_S)
                return
            if now_s - self._ended_s < SETTLE_S:
                resident.not_before_s = now_s + SETTLE_RETRY_S
                return
        n_in_row = 1 if resident.failure is None else resident.failure.n_in_row + 1
        pause_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (n_in_row - 1))
        resident.failure = Failure(reason, now_s + pause_s, n_in_row)
        self._refuse(name, _told(name, resident.failure, now_s))

    def ended(self, name: str, now_s: float) -> None:
        """Records that the engine of a model has ended, and its memory is free."""
        resident = self._residents[name]
        resident.phase, resident.leave_by_s = Phase.UNLOADED, None
        resident.has_own_keep = False
        if not resident.is_short:
            self._ended_s = now_s
        resident.is_short = False

    # ---- decisions
    def decide(self, now_s: float) -> list[Command]:
        """Settles the tickets that can be, and returns what is to be done now."""
        self._refuse_overdue(now_s)
        commands = [*self._leaving(now_s)]
        self._grant(now_s)  # who has waited for a model that is loaded now comes before the next
        head, victims = self._next_load(now_s)
        self._held = self._held_for(victims, now_s)
        self._grant(now_s)
        if head is None:
            return commands
        if victims and not any(one.is_busy for one in victims):
            commands += [self._unload(one) for one in victims]
        elif not victims and self._is_free(head, now_s):
            head.phase, head.is_asleep, head.load_began_s = Phase.LOADING, False, now_s
            commands.append(Command(Act.LOAD, head.name))
        return commands

    def due_s(self, now_s: float) -> float:
        """Returns when `decide` has to be called again though nothing happens; infinite: never."""
        times = [ticket.asked_s + MAX_WAIT_S for ticket in self._waiting]
        for one in self._residents.values():
            if one.phase is Phase.LOADED and not one.n_leases:
                times.append(one.sleeps_at_s)
            if one.leave_by_s is not None and one.phase is not Phase.LEAVING:
                times.append(one.leave_by_s)
            if self._waiting:
                times += [at for at in (one.turn_ends_s, one.not_before_s) if at > now_s]
        return min(times, default=math.inf)

    def _refuse_overdue(self, now_s: float) -> None:
        for ticket in [one for one in self._waiting if now_s - one.asked_s >= MAX_WAIT_S]:
            self._waiting.remove(ticket)
            ticket.refusal = Refusal(
                f"The model {ticket.name!r} could not be loaded within {MAX_WAIT_S:.0f} s, as "
                "others were busy; ask again in a moment.", BUSY_RETRY_S,
            )  # fmt: skip

    def _leaving(self, now_s: float) -> Iterator[Command]:
        """Yields the ends of models that were unloaded by hand or have been idle for too long."""
        wanted = {ticket.name for ticket in self._waiting}
        for one in self._residents.values():
            if one.leave_by_s is not None and one.phase in (Phase.LOADING, Phase.LOADED):
                if not one.n_leases or now_s >= one.leave_by_s:
                    yield self._unload(one)
            elif one.is_idle_too_long(now_s) and one.name not in wanted:
                one.is_asleep = not one.has_own_keep
                yield self._unload(one)

    def _unload(self, resident: Resident) -> Command:
        resident.phase = Phase.LEAVING
        return Command(Act.UNLOAD, resident.name)

    def _next_load(self, now_s: float) -> tuple[Resident | None, list[Resident]]:
        """Returns the model that is to be loaded next, if any, and those that leave for it. Refuses
        the requests for models that have no room."""
        limits = self._limits_now(now_s)
        while True:
            missing = (self._residents[ticket.name] for ticket in self._waiting)
            head = next((one for one in missing if one.phase is Phase.UNLOADED), None)
            if head is None:
                return None, []
            stay = [one for one in self._occupants() if one.phase is not Phase.LEAVING]
            victims = victims_for(head, stay, limits)
            if victims is not None:
                return head, victims
            self._refuse(head.name, self._no_room(head, stay))

    def _limits_now(self, now_s: float) -> Limits:
        too_much, until_s = self._short
        if now_s >= until_s:
            return self._limits
        return replace(self._limits, memory_bytes=min(self._limits.memory_bytes, too_much - 1))

    def _held_for(self, victims: Iterable[Resident], now_s: float) -> set[str]:
        """Returns the models that take no new requests: all that leave, as soon as each busy one of
        them has had its turn."""
        chosen = list(victims)
        has_turn = any(one.is_busy and now_s < one.turn_ends_s for one in chosen)
        return set() if has_turn else {one.name for one in chosen}

    def _grant(self, now_s: float) -> None:
        waiting, self._waiting = self._waiting, []
        for ticket in waiting:
            resident = self._residents[ticket.name]
            is_open = resident.phase is Phase.LOADED and resident.leave_by_s is None
            if not is_open or ticket.name in self._held:
                self._waiting.append(ticket)
                continue
            ticket.is_granted = True
            resident.used_s = now_s
            resident.n_leases += not ticket.only_loads

    def _is_free(self, head: Resident, now_s: float) -> bool:
        """Returns whether the memory for a model is free now, and nothing else loads."""
        occupants = self._occupants()
        is_alone = all(one.phase is not Phase.LOADING for one in occupants)
        has_room = self._limits_now(now_s).hold([*occupants, head])
        return is_alone and has_room and now_s >= head.not_before_s

    def _occupants(self) -> list[Resident]:
        return [one for one in self._residents.values() if one.phase is not Phase.UNLOADED]

    def _refuse(self, name: str, refusal: Refusal, *, only_loads: bool = False) -> bool:
        """Refuses the tickets of a model, or those alone that only load it. Returns whether there
        were any."""
        found = [t for t in self._waiting if t.name == name and (t.only_loads or not only_loads)]
        for ticket in found:
            self._waiting.remove(ticket)
            ticket.refusal = refusal
        return bool(found)

    def _no_room(self, wanted: Resident, stay: Iterable[Resident]) -> Refusal:
        pinned = [one for one in stay if one.is_pinned]
        held = sum(one.need_bytes for one in pinned)
        names = ", ".join(one.name for one in pinned)
        kept = f", of which {_gb(held)} are held by pinned models ({names})" if pinned else ""
        most = f" and {self._limits.max_models} models" if self._limits.max_models else ""
        return Refusal(
            f"The model {wanted.name!r} needs {_gb(wanted.need_bytes)} of memory, and the models "
            f"of this server may take {_gb(self._limits.memory_bytes)}{most} together{kept}. Lower "
            "its ctx-size, give the server more (--models-memory, --models-max), or add workers."
        )


def _told(name: str, failure: Failure, now_s: float) -> Refusal:
    return Refusal(
        f"The model {name!r} failed to load: {failure.reason}", max(1.0, failure.retry_s - now_s)
    )


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
