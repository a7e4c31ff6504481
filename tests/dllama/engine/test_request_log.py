"""Requests in an engine's steps and log: when they begin, how long they wait, how they end."""

from __future__ import annotations

import logging

import pytest

from dllama.engine.engine import Engine
from dllama.engine.request_log import RequestLog
from dllama.requests import FinishReason, Output, Submit
from dllama.step import LogitRow, Step
from tests.dllama.engine.history_runner import HistoryRunner


class NotingRunner(HistoryRunner):
    """Keeps which requests each step begins."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[list[str]] = []

    def run(self, step: Step) -> list[LogitRow]:
        self.begun.append(step.requests)
        return super().run(step)


def test_a_step_names_the_requests_that_begin_with_it_and_outputs_tell_how_long_they_waited() -> (
    None
):
    now = [0.0]
    runner = NotingRunner()
    engine = Engine(runner, max_batch=2, clock=lambda: now[0])
    for name, request in (("a", "r1"), ("b", "r1"), ("c", "r2")):
        engine.submit(Submit(name, [1, 2, 3], max_tokens=2, request_id=request))
    waited: dict[str, float] = {}
    while engine.has_work():
        now[0] += 1.0
        for output in engine.step():
            waited.setdefault(output.id, output.waited_s)
    assert [names for names in runner.begun if names] == [["r1"], ["r2"]]
    assert waited["a"] == waited["b"] == 1.0 and waited["c"] > waited["a"]
    engine.close()


def test_the_log_tells_of_a_sequence_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="dllama.engine.request_log")
    told = RequestLog()
    told.arrived(Submit("a", [4711, 4712], request_id="r1"))
    told.arrived(Submit("b", [4711], request_id="r2"))
    told.delivered([Output("a", [4713]), Output("other", [], FinishReason.STOP)])
    told.delivered([Output("a", [], FinishReason.ERROR, error="4713 is bad", waited_s=0.5)])
    told.delivered([Output("a", [], FinishReason.STOP)])  # it has ended
    told.aborted("b")
    told.aborted("b")
    requests = [vars(record)["request_id"] for record in caplog.records]
    assert requests == ["r1", "r2", "r1", "r2"]
    assert "error" in caplog.messages[2] and "waited 500.0 ms" in caplog.messages[2]
    assert "47" not in "".join(caplog.messages)


def test_nothing_is_kept_where_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    told = RequestLog()
    told.arrived(Submit("a", [1], request_id="r1"))
    assert not told._requests
