"""Checks requests, so that no input can harm a step, and fits long prompts to the context."""

from __future__ import annotations

import math
from dataclasses import replace

from dllama.engine.sampling.names import DEFAULT_ORDER, MAX_CHAIN
from dllama.engine.sampling.parameters import Bounds
from dllama.engine.sequence import POOLINGS
from dllama.errors import RequestError
from dllama.requests import MAX_PROBS, SAMPLING_NUMBERS, Resume, SamplingParams, Submit

MAX_ID_CHARS = 256
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
    _check_pooling(submit)
    if submit.resume is not None:
        _check_resume(submit, submit.resume, vocab_size)
    check_sampling(submit.sampling, vocab_size)


def _check_pooling(submit: Submit) -> None:
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


def _check_resume(submit: Submit, resume: Resume, vocab_size: int) -> None:
    if resume.tokens:
        _check_ids("resume", "the answer so far", resume.tokens, vocab_size)
    n, most = len(resume.tokens), submit.max_tokens
    if n and (submit.pooling is not None or (most is not None and n >= most)):
        raise RequestError(
            f"the answer to go on with has {n} tokens, and fewer than max_tokens={most}, and none "
            "with pooling, are expected",
            param="resume",
        )
    if resume.mu is not None and not math.isfinite(resume.mu):
        raise RequestError(f"mu is {resume.mu}, and a number is expected", param="resume")


def check_sampling(params: SamplingParams, vocab_size: int) -> None:
    """Raises RequestError, naming the field, for a parameter out of its range."""
    for number in SAMPLING_NUMBERS:
        _check_range(number.name, getattr(params, number.name), number.bounds)
    if params.n_probs is not None:
        _check_range("n_probs", params.n_probs, Bounds(0, MAX_PROBS, ""))
    if len(params.samplers) > MAX_CHAIN or not set(params.samplers) <= set(DEFAULT_ORDER):
        raise RequestError(
            f"samplers names {', '.join(params.samplers):.80}, and at most {MAX_CHAIN} of "
            f"{', '.join(DEFAULT_ORDER)} are expected",
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


def _check_range(name: str, value: float, bounds: Bounds) -> None:
    if not bounds.low <= value <= bounds.high:  # false for NaN too
        wanted = f"{bounds.low:g} or more"
        if bounds.high < math.inf:
            wanted = f"{bounds.low:g} to {bounds.high:g}"
        raise RequestError(f"{name} is {value}, and {wanted} is expected", param=name)


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


def fitted(submit: Submit, max_len: int) -> Submit:
    """The request with a prompt that a context of `max_len` tokens has room for, if it asks for
    context shifts; else unchanged. An answer without a limit gets one context's worth of tokens."""
    if not submit.context_shift:
        return submit
    n_keep = len(submit.tokens) if submit.n_keep < 0 else submit.n_keep
    tokens = fitting_prompt(submit.tokens, n_keep, max_len)
    n_most = max_len if submit.max_tokens is None else submit.max_tokens
    return replace(submit, tokens=tokens, n_keep=n_keep, max_tokens=n_most)


def fitting_prompt(tokens: list[int], n_keep: int, max_len: int) -> list[int]:
    """The first `n_keep` tokens and as many of the last as leave room for an answer.

    Tokens are dropped in blocks of half the context: as a chat grows from turn to turn, its prompts
    keep the same beginning for a long time, and find the last turn in the KV cache.
    """
    if len(tokens) < max_len:
        return tokens
    n_keep = max(0, min(n_keep, max_len - 4))
    block = (max_len - n_keep) // 2
    n_dropped = -(-(len(tokens) - max_len + 1) // block) * block
    return tokens[:n_keep] + tokens[n_keep + n_dropped :]
