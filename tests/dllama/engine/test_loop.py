"""The loop that drives an engine, without sockets or waiting: the transport is a script, and time
passes only while the loop waits for a message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from dllama.engine.engine import Engine
from dllama.engine.loop import (
    IDLE_S,
    PROGRESS_S,
    EngineLoop,
    Progress,
    TransportClosed,
)
from dllama.engine.recovery import FIRST_PAUSE_S, MAX_PAUSE_S, PAUSE_GROWTH
from dllama.errors import ModelFileError
from dllama.requests import (
    Abort,
    EngineState,
    FinishReason,
    FromEngine,
    Output,
    SamplingParams,
    SessionAction,
    SessionCall,
    SessionReply,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    ToEngine,
)
from tests.dllama.engine.days import expected
from tests.dllama.engine.history_runner import Answer, HistoryRunner

WARM = SamplingParams(temperature=1.0, top_k=20, seed=5)


class ScriptedTransport:
    """Delivers messages at given times, and closes at `ends_at`. Is its own clock."""

    def __init__(
        self, script: Sequence[tuple[float, ToEngine]] = (), *, ends_at: float = 100.0
    ) -> None:
        self.now_s = 0.0
        self.sent: list[tuple[float, FromEngine]] = []
        self.is_behind = False
        self.n_flushed = 0
        self._script = sorted(script, key=lambda entry: entry[0])
        self._ends_at = ends_at

    def clock(self) -> float:
        return self.now_s

    def receive(self, timeout_s: float) -> list[ToEngine]:
        assert 0.0 <= timeout_s <= IDLE_S
        if not (self._script and self._script[0][0] <= self.now_s):
            self.now_s += timeout_s
        if self.now_s >= self._ends_at:
            raise TransportClosed
        if self.is_behind:
            return []
        due = [message for at_s, message in self._script if at_s <= self.now_s]
        del self._script[: len(due)]
        return due

    def send(self, message: FromEngine) -> None:
        self.sent.append((self.now_s, message))

    def flush(self, timeout_s: float) -> None:
        self.n_flushed += 1

    @property
    def states(self) -> list[tuple[float, str]]:
        return [(at_s, m.state) for at_s, m in self.sent if isinstance(m, EngineState)]

    def outputs(self, name: str) -> list[Output]:
        done = [m for _, m in self.sent if isinstance(m, StepDone)]
        return [output for m in done for output in m.outputs if output.id == name]

    def answer(self, name: str) -> Answer:
        outputs = self.outputs(name)
        return Answer([t for output in outputs for t in output.tokens], outputs[-1].finish)


def run(
    transport: ScriptedTransport, runner: HistoryRunner, load: Callable[[Progress], None] = print
) -> bool:
    def loaded(report: Progress) -> Engine:
        if load is not print:
            load(report)
        return Engine(runner)

    return EngineLoop(transport, transport.clock).run(loaded)


def test_messages_are_answered_and_a_closed_transport_ends_the_loop() -> None:
    runner = HistoryRunner()
    submit = Submit("a", [1, 2], WARM, max_tokens=9)
    call = SessionCall("c", SessionAction.ERASE, "nobody")
    transport = ScriptedTransport(
        [(1.0, submit), (1.0, Submit("b", [3], WARM)), (1.0, Abort("b")), (2.0, StatsQuery("q")),
         (2.0, call)], ends_at=5.0,
    )  # fmt: skip
    assert run(transport, runner) is True
    assert transport.states == [(0.0, "loading"), (0.0, "ready")]
    assert transport.answer("a") == expected(submit, runner)
    assert transport.outputs("b") == []
    [stats] = [m for _, m in transport.sent if isinstance(m, StatsReply)]
    assert stats.id == "q" and stats.stats["model"] == "history"
    [reply] = [m for _, m in transport.sent if isinstance(m, SessionReply)]
    assert reply.id == "c" and "nobody" in (reply.error or "")
    assert len(runner.idle_at) == pytest.approx(4.9 / IDLE_S, abs=2), (
        "the nodes are checked when idle"
    )


def test_progress_is_reported_now_and_then() -> None:
    transport = ScriptedTransport(ends_at=1.0)

    def load(report: Progress) -> None:
        for i in range(1000):
            transport.now_s = i * PROGRESS_S / 100
            report(i / 1000, "layers")

    run(transport, HistoryRunner(), load)
    told = [m for _, m in transport.sent if isinstance(m, EngineState) and m.detail]
    assert len(told) == 10 == transport.n_flushed
    assert told[0] == EngineState("loading", 0.0, "layers")
    assert 0.9 <= told[-1].progress < 0.95


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelFileError("m.gguf is no model file"), "m.gguf is no model file"),
        (RuntimeError("a bug"), "RuntimeError('a bug')"),
    ],
)
def test_an_engine_that_cannot_load_has_failed(error: Exception, words: str) -> None:
    def load(report: Progress) -> None:
        raise error

    transport = ScriptedTransport()
    assert run(transport, HistoryRunner(), load) is False
    [*_, (_, last)] = transport.sent
    assert isinstance(last, EngineState) and last.state == "failed" and words in last.detail
    assert transport.n_flushed == 1


def test_a_bug_in_a_step_is_a_failure() -> None:
    class Buggy(HistoryRunner):
        def run(self, step: object) -> list[object]:  # type: ignore[override]
            raise IndexError("out of bounds")

    transport = ScriptedTransport([(1.0, Submit("a", [1], WARM))])
    assert run(transport, Buggy()) is False
    assert [state for _, state in transport.states] == ["loading", "ready", "failed"]


def test_recovery_begins_at_once_backs_off_and_ends_nothing() -> None:
    """Lost at 1 s; the first attempt is made at once, and five fail."""
    runner = HistoryRunner(lose_at=[2], n_failures=5)
    submits = [Submit("a", [1, 2], WARM, max_tokens=50), Submit("early", [1], WARM, max_tokens=9)]
    script: list[tuple[float, ToEngine]] = [
        (1.0, submits[0]), (1.2, submits[1]), (1.3, StatsQuery("q")),
        (1.3, SessionCall("c", SessionAction.ERASE, "nobody")),
    ]  # fmt: skip
    transport = ScriptedTransport(script, ends_at=60.0)
    assert run(transport, runner) is True
    [asked_s] = [at_s for at_s, m in transport.sent if isinstance(m, StatsReply)]
    assert asked_s == pytest.approx(1.3, abs=IDLE_S), "answered before the nodes are back"
    [reply] = [m for _, m in transport.sent if isinstance(m, SessionReply)]
    assert "is being brought back" in (reply.error or "")
    pauses = [0.0, FIRST_PAUSE_S]
    while len(pauses) < 6:
        pauses.append(min(pauses[-1] * PAUSE_GROWTH, MAX_PAUSE_S))
    assert pauses[-1] == MAX_PAUSE_S
    times = [at_s for at_s, _ in transport.states[2:]]
    assert [state for _, state in transport.states] == [
        "loading", "ready", *["recovering"] * 6, "ready",
    ]  # fmt: skip
    assert [b - a for a, b in pairwise(times)] == pytest.approx(pauses)
    told = [m for _, m in transport.sent if isinstance(m, EngineState)]
    assert [m.queues for m in told] == [m.state == "recovering" for m in told]
    for submit in submits:
        assert transport.answer(submit.id) == expected(submit, runner)


def test_after_the_limit_answers_end_and_requests_are_refused_until_the_nodes_are_back() -> None:
    runner = HistoryRunner(lose_at=[2], n_failures=6)
    late = Submit("late", [4, 5], WARM, max_tokens=6)
    script: list[tuple[float, ToEngine]] = [
        (1.0, Submit("a", [1, 2], WARM, max_tokens=50)), (5.0, Submit("b", [1, 2], WARM)),
        (50.0, late),
    ]  # fmt: skip
    transport = ScriptedTransport(script, ends_at=60.0)
    loop = EngineLoop(transport, transport.clock, max_recover_s=3.0)
    assert loop.run(lambda report: Engine(runner)) is True
    ended = [(at_s, o) for at_s, m in transport.sent if isinstance(m, StepDone) for o in m.outputs
             if o.finish is FinishReason.ERROR]  # fmt: skip
    assert [output.id for _, output in ended] == ["a", "b"]
    assert [at_s for at_s, _ in ended] == pytest.approx([4.0, 5.0], abs=2 * IDLE_S)
    assert all(output.retry_after_s is not None for _, output in ended)
    told = [(at_s, m) for at_s, m in transport.sent if isinstance(m, EngineState)]
    assert all(m.queues == (at_s < 4.0) for at_s, m in told if m.state == "recovering")
    assert told[-1][1].state == "ready", "it is tried on"
    assert transport.answer("late") == expected(late, runner)


def test_nodes_that_change_are_taken_between_two_steps() -> None:
    class Joined(HistoryRunner):
        def idle(self) -> None:
            super().idle()
            if len(self.idle_at) == 3:
                self.change = "10.0.0.9:9998 is back"

    runner = Joined()
    submit = Submit("a", [1, 2], WARM, max_tokens=9)
    transport = ScriptedTransport([(1.0, submit)], ends_at=5.0)
    assert run(transport, runner) is True
    told = [m for _, m in transport.sent if isinstance(m, EngineState)]
    assert [m.state for m in told] == ["loading", "ready", "recovering", "ready"]
    assert told[2].detail == "10.0.0.9:9998 is back" and told[2].queues
    assert transport.answer("a") == expected(submit, runner)


def test_a_second_loss_begins_at_once_too() -> None:
    runner = HistoryRunner(n_failures=3)
    transport = ScriptedTransport(ends_at=40.0)
    loop, engine = EngineLoop(transport, transport.clock), Engine(runner)
    for _ in range(2):
        runner.lose()
        loop.turn(engine)
        began_s = transport.now_s
        while runner.is_lost:
            loop.turn(engine)
    assert transport.now_s == began_s


def test_weights_sent_again_are_loading() -> None:
    class Fed(HistoryRunner):
        report: Progress

        def recover(self) -> None:
            super().recover()
            self.report(0.5, "sending 5 of 10 MB")

    runner = Fed()
    runner.is_lost = True

    def load(report: Progress) -> None:
        runner.report = report

    transport = ScriptedTransport(ends_at=9.0)
    run(transport, runner, load)
    told = [state for _, state in transport.states]
    assert told == ["loading", "ready", "recovering", "loading", "ready"]
    assert [m.queues for _, m in transport.sent if isinstance(m, EngineState)] == [
        False, False, True, True, False,
    ]  # fmt: skip


def test_messages_are_handled_and_deadlines_hold_while_weights_are_sent_again() -> None:
    transport = ScriptedTransport(ends_at=100.0)

    class Fed(HistoryRunner):
        report: Progress

        def recover(self) -> None:
            for i in range(40):
                transport.now_s += 0.5
                self.report(i / 40, "sending")
            super().recover()

    runner = Fed(lose_at=[2])
    kept = Submit("kept", [1, 2], WARM, max_tokens=9)
    transport = ScriptedTransport(
        [(0.0, kept), (0.0, Submit("late", [3], WARM, max_tokens=99, deadline_s=2.0)),
         (3.0, StatsQuery("q")), (4.0, Abort("gone")), (3.5, Submit("gone", [5], WARM))],
        ends_at=30.0,
    )  # fmt: skip

    def load(report: Progress) -> Engine:
        runner.report = report
        return Engine(runner, clock=transport.clock)

    assert EngineLoop(transport, transport.clock).run(load) is True
    [asked_s] = [at_s for at_s, m in transport.sent if isinstance(m, StatsReply)]
    assert asked_s == pytest.approx(3.0, abs=0.6)
    [ended_s] = [at_s for at_s, m in transport.sent if isinstance(m, StepDone)
                 for o in m.outputs if o.id == "late" and o.finish is not None]  # fmt: skip
    assert ended_s == pytest.approx(2.0, abs=0.6)
    assert transport.outputs("gone") == []
    assert transport.answer("kept") == expected(kept, runner)


def test_no_step_is_run_while_the_reader_is_behind() -> None:
    runner = HistoryRunner()
    submit = Submit("a", [1, 2], WARM, max_tokens=9)
    transport = ScriptedTransport([(0.0, submit)])
    loop, engine = EngineLoop(transport, transport.clock), Engine(runner)
    loop.turn(engine)
    transport.is_behind = True
    n_steps, n_idle = len(runner.step_sizes), len(runner.idle_at)
    for _ in range(5):
        loop.turn(engine)
    assert len(runner.step_sizes) == n_steps and len(runner.idle_at) == n_idle + 5
    transport.is_behind = False
    while engine.has_work():
        loop.turn(engine)
    assert transport.answer("a") == expected(submit, runner)


def test_the_transport_may_close_while_loading_and_while_recovering() -> None:
    def load(report: Progress) -> None:
        raise TransportClosed

    assert run(ScriptedTransport(), HistoryRunner(), load) is True
    runner = HistoryRunner(n_failures=10**6)
    runner.is_lost = True
    transport = ScriptedTransport(ends_at=30.0)
    assert run(transport, runner) is True
    assert transport.states[-1][1] == "recovering"
