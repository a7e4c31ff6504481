"""GET /metrics in Prometheus' text format: llama-server's names, and ours under dllama:."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from aiohttp import web

from api.context import CONTEXT, ApiContext
from api.meter import Meter, rate
from api.models.pool import ModelPool
from api.routes.slots import occupied
from api.served_model import ServedModel
from dllama.errors import ClusterError


class Sample(NamedTuple):
    """One metric. `value` is of Prometheus' `kind`, counter or gauge. `model` is shown as a label
    where a scrape is about several."""

    name: str
    kind: str
    text: str
    value: float
    model: str = ""


async def metrics(request: web.Request) -> web.Response:
    """The figures of one model; of a router those of each model that is loaded, and its own."""
    context, name = request.app[CONTEXT], request.query.get("model")
    pool = context.models
    if name is None and isinstance(pool, ModelPool):
        samples = [*server_samples(context), *pool_samples(pool)]
        for model in pool.all():
            found = await model_samples(context, model)
            samples += [sample._replace(model=model.id) for sample in found]
    else:
        found = await model_samples(context, context.models.look(name))
        samples = [*found, *server_samples(context)]
    return web.Response(
        text=exposition(samples),
        headers={
            "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
            "Process-Start-Time-Unix": str(int(context.started_at)),
        },
    )


async def model_samples(context: ApiContext, model: ServedModel) -> list[Sample]:
    """Returns the metrics of one model; the server's own figures are better than none."""
    stats: Mapping[str, Any] = {}
    with suppress(TimeoutError, ClusterError):
        async with asyncio.timeout(context.config.stats_timeout_s):
            stats = await model.engine.stats()
    return [*llama_samples(context, model, stats), *own_samples(context, model, stats)]


def exposition(samples: Iterable[Sample]) -> str:
    """Returns the text of all samples, those of one name together."""
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    return "".join(
        f"# HELP {name} {rows[0].text}\n# TYPE {name} {rows[0].kind}\n" + "".join(map(_line, rows))
        for name, rows in by_name.items()
    )


def _line(sample: Sample) -> str:
    label = sample.model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    labels = f'{{model="{label}"}}' if sample.model else ""
    return f"{sample.name}{labels} {sample.value:.10g}\n"


def server_samples(context: ApiContext) -> Iterator[Sample]:
    """Yields the counts of all requests."""
    counts = context.requests
    rows = (
        ("requests_total", "counter", "Requests for answers.", counts.n_total),
        ("requests_open", "gauge", "Requests for answers that are open.", counts.n_open),
    )
    for name, kind, text, value in rows:
        yield Sample(f"dllama:{name}", kind, text, value)


def pool_samples(pool: ModelPool) -> Iterator[Sample]:
    """Yields what a router's models do and take."""
    told = "Requests that wait for a model to be loaded."
    yield Sample("dllama:models_waiting", "gauge", told, pool.n_waiting)
    for entry in pool.entries():
        usage, is_loaded = pool.usage(entry), pool.status(entry).value == "loaded"
        rows = (
            ("model_loaded", "gauge", "1 while the model is loaded.", float(is_loaded)),
            ("model_bytes", "gauge", "Memory that the model takes of all nodes, as planned.",
             usage["needed_bytes"]),
            ("model_loads_total", "counter", "Loads of the model.", usage["loads"]),
        )  # fmt: skip
        for name, kind, text, value in rows:
            yield Sample(f"dllama:{name}", kind, text, value, entry.name)


def llama_samples(
    context: ApiContext, model: ServedModel, stats: Mapping[str, Any]
) -> Iterator[Sample]:
    """Yields llama-server's metrics. Rates are averages since the last scrape."""
    guesses = stats.get("speculation", {})
    for sample in (
        *counters(context.meter_of(model), stats),
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
    meter = context.meter_of(model)
    n_open = sum(1 for _ in meter.sequences())
    n_running = sum(row is not None for row in occupied(context, model))
    prompt_rate, predicted_rate = meter.last_scrape.rates(meter)
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

    is_ready = model.engine.state.state in ("ready", "sleeping")
    yield sample(
        "ready",
        "gauge",
        "1 while the model serves, or sleeps until it is asked something.",
        float(is_ready),
    )
    for name, milliseconds in context.meter_of(model).latency_ms().items():
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
