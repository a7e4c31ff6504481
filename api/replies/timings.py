"""llama-server's `timings` and `prompt_progress`, which answers of several APIs have."""

from __future__ import annotations

from api.answers.events import Progress, Usage
from api.replies.event_stream import Json


def timings_of(usage: Usage) -> Json:
    """Returns llama-server's `timings`."""
    n_prompt = usage.n_prompt - usage.n_cached
    prompt_ms, predicted_ms = 1000 * usage.prompt_s, 1000 * usage.completion_s
    timings = {
        "cache_n": usage.n_cached,
        "prompt_n": n_prompt,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": ratio(prompt_ms, n_prompt),
        "prompt_per_second": ratio(1000 * n_prompt, prompt_ms),
        "predicted_n": usage.n_completion,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": ratio(predicted_ms, usage.n_timed),
        "predicted_per_second": ratio(1000 * usage.n_timed, predicted_ms),
    }
    if usage.n_drafted:
        timings |= {"draft_n": usage.n_drafted, "draft_n_accepted": usage.n_accepted}
    return dict(timings)


def progress_of(progress: Progress) -> Json:
    """Returns llama-server's `prompt_progress`: tokens of the prompt that are in the cache, and
    the milliseconds since the request was handed to the engine."""
    return {
        "total": progress.n_prompt,
        "cache": progress.n_cached,
        "processed": progress.n_computed,
        "time_ms": 1000 * progress.elapsed_s,
    }


def ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
