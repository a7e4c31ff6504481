"""llama-server's `generation_settings`: how an answer was made, in answers, /props and /slots."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from api.replies.event_stream import Json
from api.requests.generation import GenerationRequest
from dllama.requests import SamplingParams

# SamplingParams are told under llama-server's names, which are ours; these are told otherwise.
OTHERWISE = frozenset({"dry_phrases", "dry_breakers", "logit_bias", "n_probs"})
ANY_SEED = 2**32 - 1  # how llama-server tells that a request draws its own

# What llama-server has and this server has not: the values that mean "off".
ABSENT: Mapping[str, object] = {
    "adaptive_target": -1.0,
    "adaptive_decay": 0.9,
    "n_discard": 0,
    "grammar_lazy": False,
    "grammar_triggers": [],
    "preserved_tokens": [],
    "reasoning_in_content": False,
    "generation_prompt": "",
    "backend_sampling": False,
    "lora": [],
}


def sampling_settings(sampling: SamplingParams) -> Json:
    """Returns the samplers of a sequence; a bias of minus infinity is null, as JSON has none."""
    told = {f.name: getattr(sampling, f.name) for f in fields(SamplingParams)}
    settings: dict[str, Any] = {k: v for k, v in told.items() if k not in OTHERWISE}
    settings["n_probs"] = sampling.n_probs or 0
    settings["logit_bias"] = [
        {"token": token, "bias": bias if math.isfinite(bias) else None}
        for token, bias in sampling.logit_bias.items()
    ]
    return settings


def generation_settings(
    wanted: GenerationRequest, sampling: SamplingParams, n_predict: int, *, is_chat: bool = False
) -> Json:
    """Returns how an answer to the request is made. `n_predict` -1: as far as the context goes."""
    options, form = wanted.options, wanted.form
    return {
        **ABSENT,
        **sampling_settings(sampling),
        "dry_sequence_breakers": list(wanted.breakers),
        "stop": list(wanted.stops),
        "max_tokens": n_predict,
        "n_predict": n_predict,
        "n_keep": options.n_keep or 0,
        "ignore_eos": wanted.ignore_eos,
        "stream": wanted.stream,
        "timings_per_token": wanted.timings_per_token,
        "grammar": "" if form is None else str(form.part),
        "chat_format": "peg-native" if is_chat else "Content-only",
        "reasoning_format": "auto" if is_chat else "none",
        "speculative.types": "none" if options.draft_max == 0 else "ngram-simple",
        "speculative.n_max": options.draft_max,
        "speculative.n_min": options.draft_min,
        "speculative.p_min": options.draft_p_min,
    }
