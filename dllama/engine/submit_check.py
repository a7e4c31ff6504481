"""The engine's own look at a request, so that nothing from outside can harm a step."""

from __future__ import annotations

import math

from dllama.engine.pooling import POOLINGS
from dllama.errors import RequestError
from dllama.requests import SAMPLERS, SamplingParams, Submit

MAX_ID_CHARS = 256
MAX_PROBS = 1024  # likeliest tokens that are told with each token
_BOUNDS: dict[str, tuple[float, float]] = {
    # Wider than any use, narrow enough that no float32 logit overflows.
    "temperature": (0.0, 1e6),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (1e-3, 1e3),
    "presence_penalty": (-1e3, 1e3),
    "frequency_penalty": (-1e3, 1e3),
    "top_k": (0, math.inf),
    "repeat_last_n": (-1, math.inf),
    "dynatemp_range": (0.0, 1e6),
    "dynatemp_exponent": (0.0, 1e3),
    "typical_p": (0.0, 1.0),
    "top_n_sigma": (-1e3, 1e3),
    "xtc_probability": (0.0, 1.0),
    "xtc_threshold": (0.0, 1.0),
    "dry_multiplier": (0.0, 1e3),
    "dry_base": (1.0, 1e3),
    "dry_allowed_length": (0, math.inf),
    "dry_penalty_last_n": (-1, math.inf),
    "mirostat": (0, 2),
    "mirostat_tau": (0.0, 1e3),
    "mirostat_eta": (0.0, 1e3),
    "min_keep": (0, math.inf),
    "n_probs": (0, MAX_PROBS),
}
_MAX_SAMPLERS = 64  # each runs once for every time it is named
_MAX_BIAS = 1e6  # minus infinity is allowed too: the token never comes


def check_submit(submit: Submit, vocab_size: int) -> None:
    """Raises RequestError, naming the field, for a request that no engine could serve."""
    if not submit.id or len(submit.id) > MAX_ID_CHARS:
        raise RequestError(
            f"a request's id has {len(submit.id)} characters, and 1 to {MAX_ID_CHARS} are allowed",
            param="id",
        )
    if not submit.tokens:
        raise RequestError(
            "the prompt has no tokens, and at least one is needed to continue from",
            param="messages",
        )
    _check_ids("messages", "the prompt", submit.tokens, vocab_size)
    if submit.max_tokens is not None and submit.max_tokens < 0:
        raise RequestError(
            f"max_tokens is {submit.max_tokens}, and 0 or more is expected", param="max_tokens"
        )
    if submit.deadline_s is not None and not submit.deadline_s > 0:
        raise RequestError(
            f"the time for the answer is {submit.deadline_s} s, and more than 0 is expected",
            param="timeout_s",
        )
    if submit.n_keep < -1:
        raise RequestError(
            f"n_keep is {submit.n_keep}, and 0 or more tokens, or -1 for the whole prompt, are "
            "expected",
            param="n_keep",
        )
    if submit.session_id is not None and not 0 < len(submit.session_id) <= MAX_ID_CHARS:
        raise RequestError(
            f"the session's id has {len(submit.session_id)} characters, and 1 to {MAX_ID_CHARS} "
            "are allowed",
            param="session_id",
        )
    if submit.pooling not in (None, *POOLINGS):
        raise RequestError(
            f"pooling is {submit.pooling!r:.40}, and one of {', '.join(POOLINGS)} is expected",
            param="pooling",
        )
    if submit.pooling is not None and submit.cache_prompt:
        raise RequestError(
            "pooling needs the states of every token, and those of tokens in the KV cache are "
            "gone; send cache_prompt=False with it",
            param="cache_prompt",
        )
    check_sampling(submit.sampling, vocab_size)


def check_sampling(params: SamplingParams, vocab_size: int) -> None:
    """Raises RequestError, naming the field, for a parameter out of its range."""
    for name, (low, high) in _BOUNDS.items():
        value = getattr(params, name)
        if value is None:  # only n_probs may be: nothing is told
            continue
        if not low <= value <= high:  # false for NaN too
            wanted = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
            raise RequestError(f"{name} is {value}, and {wanted} is expected", param=name)
    if len(params.samplers) > _MAX_SAMPLERS or not set(params.samplers) <= set(SAMPLERS):
        raise RequestError(
            f"samplers names {', '.join(params.samplers):.80}, and at most {_MAX_SAMPLERS} of "
            f"{', '.join(SAMPLERS)} are expected",
            param="samplers",
        )
    _check_breakers(params, vocab_size)
    if params.logit_bias:
        _check_ids("logit_bias", "logit_bias", list(params.logit_bias), vocab_size)
        for token, bias in params.logit_bias.items():
            if bias != -math.inf and not abs(bias) <= _MAX_BIAS:
                raise RequestError(
                    f"logit_bias of token {token} is {bias}, and a number between "
                    f"{-_MAX_BIAS:g} and {_MAX_BIAS:g} is expected",
                    param="logit_bias",
                )


def _check_breakers(params: SamplingParams, vocab_size: int) -> None:
    name = "dry_sequence_breakers"
    for tokens in (params.dry_breakers, *params.dry_phrases):
        if tokens:
            _check_ids(name, name, tokens, vocab_size)
    if not all(params.dry_phrases):
        raise RequestError(f"{name} has a sequence without tokens; leave it out", param=name)


def _check_ids(param: str, where: str, tokens: list[int], vocab_size: int) -> None:
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab_size:
        raise RequestError(
            f"{where} names the token {low if low < 0 else high}, and this model's tokens are "
            f"0 to {vocab_size - 1}; was it made for another model?",
            param=param,
        )
