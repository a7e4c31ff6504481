"""Which models are loaded, which leave, and who waits: the policy alone, on a clock of the test."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from api.models import load_scheduler as module
from api.models.load_scheduler import LoadScheduler
from api.models.residents import Limits, Phase, Resident
from api.models.tickets import Act, Ticket

NEEDS = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


class World:
    """A scheduler, a clock, and engines that load in `load_s` and end at once."""

    def __init__(self, max_models: int = 2, memory: int = 1000, **pinned: bool) -> None:
        self.now = 100.0
        self.scheduler = LoadScheduler(Limits(max_models, memory))
        for name in NEEDS:
            self.scheduler.add(Resident(name, is_pinned=pinned.get(name, False)))
        self.loads: list[str] = []
        self.unloads: list[str] = []

    def ask(self, name: str, **more: bool) -> Ticket:
        ticket = self.scheduler.ask(name, NEEDS[name], self.now, **more)
        self.decide()
        return ticket

    def decide(self) -> None:
        """What is to leave has left at once; what is to load loads until `finish_loads`."""
        while commands := self.scheduler.decide(self.now):
            for command in commands:
                if command.act is Act.LOAD:
                    self.loads.append(command.name)
                else:
                    self.unloads.append(command.name)
                    self.scheduler.ended(command.name, self.now)

    def finish_loads(self, load_s: float = 0.0) -> None:
        self.now += load_s
        for name in self.with_phase(Phase.LOADING):
            self.scheduler.loaded(name, self.now)
        self.decide()

    def load(self, name: str) -> None:
        """Loads a model that nobody uses afterwards."""
        ticket = self.ask(name)
        self.finish_loads()
        assert ticket.is_granted
        self.release(name)

    def release(self, name: str, keep_s: float | None = None) -> None:
        self.now += 1.0
        self.scheduler.release(name, self.now, keep_s)
        self.decide()

    def with_phase(self, phase: Phase) -> list[str]:
        return [n for n in self.scheduler.names() if self.scheduler.resident(n).phase is phase]

    @property
    def loaded(self) -> list[str]:
        return self.with_phase(Phase.LOADED)


def test_a_loaded_model_is_granted_at_once_and_a_missing_one_when_it_is_loaded() -> None:
    world = World()
    first, second = world.ask("a"), world.ask("a")
    assert not first.is_settled and world.loads == ["a"]
    world.finish_loads()
    assert first.is_granted and second.is_granted
    assert world.ask("a").is_granted and world.scheduler.resident("a").n_leases == 3


def test_the_least_recently_used_leaves_first() -> None:
    world = World(max_models=2)
    world.load("a")
    world.load("b")
    world.load("a")
    world.load("c")
    assert world.unloads == ["b"] and world.loaded == ["a", "c"]


def test_memory_counts_as_well_as_the_number_and_no_more_leave_than_have_to() -> None:
    world = World(max_models=0, memory=6)
    for name in ("a", "b", "c"):
        world.load(name)
    world.load("d")
    assert world.unloads == ["a", "c"] and world.loaded == ["b", "d"], "b has room beside it"
    world = World(max_models=0, memory=8)
    world.load("a")
    world.load("d")
    world.load("e")
    assert world.unloads == ["d"], "a is older, but its leaving would not help"


def test_what_never_fits_is_refused_with_figures_and_does_not_evict() -> None:
    world = World(max_models=0, memory=4)
    world.load("a")
    ticket = world.ask("e")
    assert ticket.refusal is not None and ticket.refusal.retry_after_s is None
    assert "needs 0.00 GB" in ticket.refusal.message and "--models-memory" in ticket.refusal.message
    assert world.loaded == ["a"] and not world.unloads


def test_pinned_models_stay_and_are_named_where_they_are_in_the_way() -> None:
    world = World(max_models=1, a=True)
    world.load("a")
    ticket = world.ask("b")
    assert ticket.refusal is not None and "pinned models (a)" in ticket.refusal.message
    assert world.loaded == ["a"]
    assert world.scheduler.unload("a", world.now)
    world.decide()
    assert not world.loaded, "by hand it leaves"


def test_a_busy_model_is_never_evicted_and_gives_way_in_its_turn() -> None:
    """b waits for a. Whoever comes for a later waits behind b; when a is free, b is loaded."""
    world = World(max_models=1)
    world.ask("a")
    world.finish_loads()
    wanted = world.ask("b")
    later = world.ask("a")
    assert not wanted.is_settled and not later.is_settled and world.loaded == ["a"]
    world.release("a")
    assert world.loads == ["a", "b"]
    world.finish_loads()
    assert wanted.is_granted and not later.is_settled
    world.release("b")
    world.finish_loads()
    assert later.is_granted and world.loads == ["a", "b", "a"]


def test_a_model_serves_for_as_long_as_its_load_took() -> None:
    world = World(max_models=1)
    world.ask("a")
    world.finish_loads(load_s=10.0)
    wanted = world.ask("b")
    assert world.ask("a").is_granted, "its turn lasts 10 s"
    world.now = world.scheduler.due_s(world.now)
    world.decide()
    assert not world.ask("a").is_settled and not wanted.is_settled
    world.release("a")
    world.release("a")
    assert world.loads == ["a", "b"]


def test_two_models_that_both_have_to_leave_do_not_take_turns_for_ever() -> None:
    world = World(max_models=0, memory=5)
    for name in ("b", "c"):
        world.ask(name)
        world.finish_loads()
    wanted = world.ask("e")
    world.release("b")
    again = world.ask("b")
    assert not again.is_settled, "it is idle, and leaves together with c"
    world.release("c")
    world.finish_loads()
    assert wanted.is_granted and world.loaded == ["e"]


def test_requests_for_missing_models_are_served_in_order() -> None:
    world = World(max_models=1)
    tickets = [world.ask(name) for name in ("a", "b", "a", "c", "b")]
    served = []
    while not all(ticket.is_granted for ticket in tickets):
        world.finish_loads()
        [name] = world.loaded
        served.append(name)
        for _ in range(world.scheduler.resident(name).n_leases):
            world.release(name)
    assert served == ["a", "b", "c"], "those who want the same model share a load"


def test_a_client_that_leaves_gives_up_its_place() -> None:
    world = World(max_models=1)
    world.ask("a")
    world.finish_loads()
    gone, next_one = world.ask("b"), world.ask("c")
    world.scheduler.give_up(gone)
    world.release("a")
    world.finish_loads()
    assert next_one.is_granted and "b" not in world.loads


def test_a_failure_is_told_and_backs_off() -> None:
    world = World()
    for n, pause_s in enumerate((1.0, 2.0, 4.0), start=1):
        ticket = world.ask("a")
        assert world.loads == ["a"] * n
        world.scheduler.failed("a", "no such file", world.now)
        world.scheduler.ended("a", world.now)
        world.decide()
        assert ticket.refusal is not None and "no such file" in ticket.refusal.message
        early = world.ask("a")
        assert early.refusal is not None and early.refusal.retry_after_s == pause_s
        world.now += pause_s
    world.ask("b")
    world.finish_loads()
    assert world.loaded == ["b"], "the others are loaded meanwhile"
    world.ask("a")
    world.finish_loads()
    assert "a" in world.loaded and world.scheduler.resident("a").failure is None


def test_a_lack_of_memory_that_was_not_foreseen_evicts_and_is_tried_again() -> None:
    world = World(max_models=0)
    world.load("a")
    ticket = world.ask("b")
    world.scheduler.failed("b", "it does not fit", world.now, is_short=True)
    world.scheduler.ended("b", world.now)
    world.decide()
    assert not ticket.is_settled and world.unloads == ["a"] and world.loads == ["a", "b", "b"]
    world.scheduler.failed("b", "it does not fit", world.now, is_short=True)
    world.scheduler.ended("b", world.now)
    world.decide()
    assert not ticket.is_settled, "the memory of the others comes free on workers a moment later"
    world.now = world.scheduler.due_s(world.now)
    world.decide()
    assert world.loads == ["a", "b", "b", "b"]
    world.now += module.SETTLE_S
    world.scheduler.failed("b", "it does not fit", world.now, is_short=True)
    assert ticket.refusal is not None and "it does not fit" in ticket.refusal.message


def test_idle_models_sleep_and_those_with_a_keep_alive_leave() -> None:
    world = World()
    for name in ("a", "b"):
        world.scheduler.resident(name).idle_s = 60.0
    world.load("a")
    world.ask("b")
    world.finish_loads()
    world.now = world.scheduler.due_s(world.now)
    world.decide()
    assert world.unloads == ["a"] and world.scheduler.resident("a").is_asleep
    assert math.isinf(world.scheduler.due_s(world.now)), "b is in use"
    world.release("b", keep_s=0.0)
    assert world.unloads == ["a", "b"] and not world.scheduler.resident("b").is_asleep
    world.ask("a")
    world.finish_loads()
    world.release("a", keep_s=math.inf)
    assert math.isinf(world.scheduler.due_s(world.now))


def test_unloading_by_hand_waits_for_answers_but_not_for_ever() -> None:
    world = World()
    world.ask("a")
    world.finish_loads()
    assert not world.scheduler.unload("b", world.now)
    assert world.scheduler.unload("a", world.now)
    world.decide()
    assert world.loaded == ["a"] and not world.ask("a").is_settled
    world.now = world.scheduler.due_s(world.now)
    world.decide()
    assert world.unloads == ["a"] and world.loads == ["a", "a"]


def test_a_lack_of_memory_that_stays_is_a_failure_at_once() -> None:
    """The end of the engine that found too little gives no memory back to wait for."""
    world = World()
    for _ in range(3):
        ticket = world.ask("a")
        world.now += 1.0
        world.scheduler.failed("a", "it does not fit", world.now, is_short=True)
        world.scheduler.ended("a", world.now)
        world.decide()
        assert ticket.refusal is not None and "does not fit" in ticket.refusal.message
        failure = world.scheduler.resident("a").failure
        assert failure is not None
        world.now = failure.retry_s


def test_what_is_unloaded_by_hand_while_it_loads_is_not_loaded_again_for_who_waited() -> None:
    world = World(max_models=1)
    by_hand, waits = world.ask("a", only_loads=True), world.ask("a")
    later = world.ask("b", only_loads=True)
    assert world.scheduler.cancel_load("a") and world.scheduler.unload("a", world.now)
    assert waits.refusal is not None and "unloaded by hand" in waits.refusal.message
    assert by_hand.is_settled and not later.is_settled
    wants = world.ask("a")
    assert world.unloads == ["a"] and world.loads == ["a", "b"], "b waited before"
    assert world.scheduler.cancel_load("b") and world.scheduler.unload("b", world.now)
    world.decide()
    world.finish_loads()
    assert wants.is_granted, "it was asked for after that"
    waits = world.ask("b", only_loads=True)
    request = world.ask("b")
    assert world.scheduler.cancel_load("b") and not world.scheduler.unload("b", world.now)
    assert waits.is_settled and not request.is_settled, "its turn has not come"
    assert not world.scheduler.cancel_load("b")


def test_a_model_that_takes_more_than_was_thought_waits_for_its_room() -> None:
    world = World(max_models=0, memory=5)
    world.load("c")
    ticket = world.ask("b")
    assert world.loads == ["c", "b"]
    assert not world.scheduler.puts_back("b", 2) and world.scheduler.puts_back("b", 4)
    world.decide()
    assert world.unloads == ["c"] and world.loads == ["c", "b", "b"]
    world.finish_loads()
    assert ticket.is_granted


def test_nobody_waits_for_ever_and_not_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(max_models=1)
    world.ask("a")
    world.finish_loads()
    ticket = world.ask("b")
    world.now += module.MAX_WAIT_S
    world.decide()
    assert ticket.refusal is not None and ticket.refusal.retry_after_s
    monkeypatch.setattr(module, "MAX_WAITING", 1)
    waiting, refused = world.ask("b"), world.ask("b")
    assert not waiting.is_settled and refused.refusal is not None


def test_loading_alone_gives_no_lease() -> None:
    world = World()
    ticket = world.ask("a", only_loads=True)
    world.finish_loads()
    assert ticket.is_granted and world.scheduler.resident("a").n_leases == 0


class Router(RuleBasedStateMachine):
    """Requests, ends of answers, failures and time in any order: what holds always, and that
    everybody is served in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(max_models=2, memory=8, e=True)
        self.open: list[Ticket] = []  # waiting, or granted and not released
        self.ending: set[str] = set()

    def decide(self) -> None:
        for command in self.world.scheduler.decide(self.world.now):
            resident = self.world.scheduler.resident(command.name)
            if command.act is Act.UNLOAD:
                assert not resident.n_leases or resident.leave_by_s is not None
                assert not resident.is_pinned or resident.leave_by_s is not None
                self.ending.add(command.name)

    @rule(name=st.sampled_from("abcd"))
    def ask(self, name: str) -> None:
        scheduler, now = self.world.scheduler, self.world.now
        self.open.append(scheduler.ask(name, NEEDS[name], now))
        self.decide()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.open))
        self.open.remove(ticket)
        if ticket.is_granted:
            self.world.scheduler.release(ticket.name, self.world.now)
        else:
            self.world.scheduler.give_up(ticket)
        self.decide()

    @rule(fails=st.booleans(), is_short=st.booleans())
    def load_ends(self, fails: bool, is_short: bool) -> None:
        for name in self.world.with_phase(Phase.LOADING):
            if fails:
                self.world.scheduler.failed(name, "x", self.world.now, is_short=is_short)
                self.world.scheduler.ended(name, self.world.now)
            else:
                self.world.scheduler.loaded(name, self.world.now)
        self.decide()

    @rule()
    def engines_end(self) -> None:
        for name in sorted(self.ending):
            self.world.scheduler.ended(name, self.world.now)
        self.ending.clear()
        self.decide()

    @rule(name=st.sampled_from("abcde"))
    def unload(self, name: str) -> None:
        self.world.scheduler.unload(name, self.world.now)
        self.decide()

    @rule(seconds=st.sampled_from([0.1, 3.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.decide()

    @invariant()
    def limits_hold(self) -> None:
        scheduler = self.world.scheduler
        occupied = [n for n in NEEDS if scheduler.resident(n).phase is not Phase.UNLOADED]
        assert len(occupied) <= 2 and sum(NEEDS[name] for name in occupied) <= 8
        assert len(self.world.with_phase(Phase.LOADING)) <= 1
        for name in NEEDS:
            granted = [t for t in self.open if t.is_granted and t.name == name]
            assert scheduler.resident(name).n_leases == len(granted)

    def teardown(self) -> None:
        """Everybody who still waits is served or refused once loads succeed and answers end."""
        for _ in range(200):
            if not any(not ticket.is_settled for ticket in self.open):
                return
            self.load_ends(False, False)
            self.engines_end()
            for ticket in [one for one in self.open if one.is_granted]:
                self.open.remove(ticket)
                self.world.scheduler.release(ticket.name, self.world.now)
            self.wait(3.0)
        raise AssertionError("somebody waits for ever")


TestRouter = Router.TestCase
TestRouter.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
