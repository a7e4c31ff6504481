"""GET /metrics in Prometheus' text format: llama-server's names, and ours under dllama:."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from api.context import CONTEXT, ApiContext
from api.meter import Meter, rate
from api.routes.slots import occupied
from api.served_model import ServedModel
from dllama.errors import ClusterError


class Sample(NamedTuple):
    """One metric. `value` is of Prometheus' `kind`, counter or gauge."""

    name: str
    kind: str
    text: str
    value: float


async def metrics(request: web.Request) -> web.Response:
    context = request.app[CONTEXT]
    model = context.models.look(request.query.get("model"))
    stats: Mapping[str, Any] = {}
    try:
        async with asyncio.timeout(context.config.stats_timeout_s):
            stats = await model.engine.stats()
    except (TimeoutError, ClusterError):
        pass  # the server's own figures are better than none
    samples = [*llama_samples(context, model, stats), *own_samples(context, model, stats)]
    return web.Response(
        text=exposition(samples),
        headers={
            "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
            "Process-Start-Time-Unix": str(int(context.last_scrape.started_at)),
        },
    )


def exposition(samples: list[Sample]) -> str:
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value:.10g}\n"
        for name, kind, text, value in samples
    )


def llama_samples(
    context: ApiContext, model: ServedModel, stats: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yields llama-server's metrics. Rates are averages since the last scrape."""
    guesses = stats.get("speculation", {})
    for sample in (
        *counters(context.meter, stats),
        *gauges(context, model, stats),
        *(
            Sample(f"spec_decode_num_{name}_total", "counter", text, guesses.get(key, 0))
            for name, key, text in GUESSES
        ),
    ):
        yield sample._replace(name=f"llamacpp:{sample.name}")


def counters(meter: Meter, stats: Mapping[str, Any]) -> list[Sample]:
    n_steps = stats.get("steps", {}).get("total", 0)
    rows = (
        ("prompt_tokens_total", "Prompt tokens computed.", meter.n_prompt_tokens),
        ("prompt_tokens_cached_total", "Prompt tokens found in the KV cache.",
         meter.n_cached_tokens),
        ("prompt_seconds_total", "Seconds to first tokens.", meter.prompt_s),
        ("tokens_predicted_total", "Tokens generated.", meter.n_predicted_tokens),
        ("tokens_predicted_seconds_total", "Seconds of generating.", meter.predicted_s),
        ("n_decode_total", "Steps of the engine.", n_steps),
        ("n_tokens_max", "Most tokens of one sequence so far.", meter.n_tokens_max),
    )  # fmt: skip
    return [Sample(name, "counter", text, value) for name, text, value in rows]


def gauges(context: ApiContext, model: ServedModel, stats: Mapping[str, Any]) -> list[Sample]:
    steps = stats.get("steps", {})
    n_open = sum(1 for _ in context.meter.sequences())
    n_running = sum(row is not None for row in occupied(context, model))
    prompt_rate, predicted_rate = context.last_scrape.rates(context.meter)
    rows = (
        ("prompt_tokens_seconds", "Prompt tokens a second since the last scrape.", prompt_rate),
        ("predicted_tokens_seconds", "Generated tokens a second since the last scrape.",
         predicted_rate),
        ("requests_processing", "Sequences that run.", n_running),
        ("requests_deferred", "Sequences that wait.", n_open - n_running),
        ("n_busy_slots_per_decode", "Sequences continued by a step, on average.",
         rate(steps.get("decode_tokens", 0), steps.get("decode", 0))),
    )  # fmt: skip
    return [Sample(name, "gauge", text, value) for name, text, value in rows]


def own_samples(
    context: ApiContext, model: ServedModel, stats: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yields the metrics that llama-server has no name for."""

    def sample(name: str, kind: str, text: str, value: float) -> Sample:
        return Sample(f"dllama:{name}", kind, text, value)

    meter = context.meter
    yield sample("requests_total", "counter", "Requests for answers.", meter.n_total)
    yield sample("requests_open", "gauge", "Requests for answers that are open.", meter.n_open)
    is_ready = model.engine.state.state in ("ready", "sleeping")
    yield sample(
        "ready",
        "gauge",
        "1 while the model serves, or sleeps until it is asked something.",
        float(is_ready),
    )
    for name, milliseconds in meter.latency_ms().items():
        if milliseconds is not None:
            yield sample(f"{name}_ms", "gauge", "Latency of the recent past.", milliseconds)
    for group in ("sequences", "kv"):
        found = stats.get(group, {})
        for name, value in found.items():
            if isinstance(value, int | float):
                kind = "counter" if name in COUNTERS else "gauge"
                end = "_total" if kind == "counter" else ""
                yield sample(f"{group}_{name}{end}", kind, f"{group}.{name} of /stats.", value)
    if "world_size" in stats:
        yield sample("world_size", "gauge", "Nodes that compute.", stats["world_size"])


GUESSES = (
    ("drafts", "drafts", "Guesses at the next tokens."),
    ("draft_tokens", "drafted", "Tokens that were guessed."),
    ("accepted_tokens", "accepted", "Guessed tokens that came true."),
)
COUNTERS = frozenset({"finished", "aborted", "failed", "preempted"})
