"""Spans of requests for OpenTelemetry, where its API is installed and a program has set it up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from api.timeline import Timeline
from dllama import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

Attributes = Mapping[str, str | int | float]


class Spans:
    """Begins a span for each request. `provider` None is the one that the process has set up."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        from opentelemetry import trace

        self._tracer = trace.get_tracer("dllama", __version__, provider)

    def begin(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> RequestSpan:
        """Begins the span of a request, as a part of the client's trace where `traceparent` names
        one."""
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        # The getter of OpenTelemetry looks for lower case, and HTTP knows none.
        carrier = {key.lower(): value for key, value in headers.items()}
        span = self._tracer.start_span(
            name, propagate.extract(carrier), SpanKind.SERVER, dict(attributes)
        )
        return RequestSpan(self._tracer, span)


class RequestSpan:
    """The span of one request, and its phases as spans within it."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span

    def end(self, status: int, timeline: Timeline, attributes: Attributes) -> None:
        """Ends the span with an HTTP status."""
        span = self._span
        if span.is_recording():
            self._add_phases(timeline)
            span.set_attributes({**attributes, "http.response.status_code": status})
            if status >= 500:
                from opentelemetry.trace import StatusCode

                span.set_status(StatusCode.ERROR)
        span.end()

    def _add_phases(self, timeline: Timeline) -> None:
        from opentelemetry.trace import set_span_in_context

        zero_ns = time.time_ns() - time.monotonic_ns()  # of the clock of phases, in unix time
        within = set_span_in_context(self._span)
        for name, began_s, ended_s in timeline.phases():
            phase = self._tracer.start_span(name, within, start_time=zero_ns + round(1e9 * began_s))
            phase.end(zero_ns + round(1e9 * ended_s))


def installed_spans() -> Spans | None:
    """Returns the spans of this process, None where OpenTelemetry's API is not installed."""
    if find_spec("opentelemetry") is None:
        return None
    with suppress(ImportError):  # a part of it
        return Spans()
    return None
