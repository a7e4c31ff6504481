"""Spans of requests, seen by a provider that keeps them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("opentelemetry", reason="OpenTelemetry's API is not installed")

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, StatusCode, TraceFlags

from api.app import build_app
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.spans import Spans, installed_spans
from api.models.fixed import FixedModels
from tests.api.serving import Reply, Server, run, says, served, serving_app
from tests.scripted_runner import ScriptedEngine

TRACE, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = f"00-{TRACE:032x}-{PARENT:016x}-01"


class KeptSpan(NonRecordingSpan):
    """A span that records what it is told."""

    def __init__(self, name: str, number: int, parent: SpanContext, start: int | None) -> None:
        super().__init__(SpanContext(parent.trace_id or 1, number, False, TraceFlags(1)))
        self.name, self.parent, self.start, self.stop = name, parent, start, None
        self.attributes: dict[str, object] = {}
        self.status: object = None

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: dict[str, object]) -> None:
        self.attributes.update(attributes)

    def set_status(self, status: object, description: str | None = None) -> None:
        self.status = status

    def end(self, end_time: int | None = None) -> None:
        self.stop = end_time or -1


class Keeper(trace.TracerProvider, trace.Tracer):
    """Satisfies both of OpenTelemetry's seams."""

    def __init__(self) -> None:
        self.spans: list[KeptSpan] = []

    def get_tracer(self, *args: object, **more: object) -> trace.Tracer:
        return self

    def start_span(
        self, name: str, context: Context | None = None, kind: object = None,
        attributes: dict[str, object] | None = None, links: object = None,
        start_time: int | None = None, *args: object, **more: object,
    ) -> KeptSpan:  # fmt: skip
        parent = trace.get_current_span(context).get_span_context()
        self.spans.append(KeptSpan(name, len(self.spans) + 1, parent, start_time))
        self.spans[-1].attributes |= attributes or {}
        return self.spans[-1]

    def start_as_current_span(self, *args: object, **more: object) -> object:  # type: ignore[override]
        raise AssertionError("spans of requests are nobody's current span")


def spans_of(call: Callable[[Server], object]) -> list[KeptSpan]:
    keeper = Keeper()

    async def body() -> None:
        models = FixedModels([served(InProcessEngineClient(ScriptedEngine(says("a word"))))])
        app = build_app(models, ApiConfig(), spans=Spans(keeper))
        async with serving_app(app) as server:
            reply = await call(server)  # type: ignore[misc]
            assert isinstance(reply, Reply)

    run(body)
    assert all(span.stop is not None for span in keeper.spans)
    return keeper.spans


def test_a_request_is_a_span_within_the_clients_trace_and_its_phases_are_within_it() -> None:
    asked = {"messages": [{"role": "user", "content": "a secret"}]}
    headers = {"Traceparent": TRACEPARENT, "X-Request-Id": "r1"}
    whole, *phases = spans_of(lambda s: s.post("/v1/chat/completions", asked, headers=headers))
    assert whole.name == "POST /v1/chat/completions"
    assert (whole.parent.trace_id, whole.parent.span_id) == (TRACE, PARENT)
    assert whole.attributes["http.response.status_code"] == 200
    assert whole.attributes["dllama.request_id"] == "r1"
    assert whole.attributes["gen_ai.request.model"] == "toy"
    assert int(str(whole.attributes["gen_ai.usage.output_tokens"])) > 0
    assert [phase.name for phase in phases] == ["load", "queue", "prompt", "decode"]
    own = whole.get_span_context().span_id
    assert all((one.parent.trace_id, one.parent.span_id) == (TRACE, own) for one in phases)
    times = [(one.start, one.stop) for one in phases]
    assert all(start is not None and start <= stop for start, stop in times)  # type: ignore[operator]
    assert "secret" not in str([span.attributes for span in (whole, *phases)])


def test_a_route_is_named_by_its_pattern_and_a_failure_is_one() -> None:
    [found] = spans_of(lambda s: s.get("/v1/models/nobody?secret=1"))
    assert found.name == "GET /v1/models/{name}" and found.status is None
    assert found.attributes["http.response.status_code"] == 404
    refused, *_ = spans_of(lambda s: s.post("/slots/0?action=save", {"filename": "x"}))
    assert refused.attributes["http.response.status_code"] == 501
    assert refused.status is StatusCode.ERROR


def test_without_a_set_up_provider_nothing_is_recorded() -> None:
    spans = installed_spans()
    assert spans is not None
    span = spans.begin("GET /", {}, {})
    assert not span._span.is_recording()
