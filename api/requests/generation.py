"""The part of a request that every generating route has, once checked.

Knows fields and ranges, not models: what needs a vocabulary is checked later (prompting.py)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from api.requests.answer_format import (
    FORMATS,
    RESPONSE_FORMAT,
    AnswerFormat,
    one_format,
)
from api.requests.engine_options import ENGINE_OPTIONS, EngineOptions, parse_engine_options
from api.requests.fields import (
    MAX_SEED,
    Bias,
    Body,
    Field,
    boolean,
    logit_bias,
    mapping,
    stop_strings,
    string,
    whole,
    wrong,
)
from api.requests.sampling import (
    BREAKERS,
    PROBS_FIELDS,
    SAMPLING_FIELDS,
    Asked,
    LogprobStyle,
    sampling_of_body,
    style_of,
)
from api.requests.verdicts import STREAM_OPTIONS as STREAM_OPTION_RULES
from api.requests.verdicts import check_fields

MAX_N = 16


def seed(value: object, name: str) -> int:
    """Reads any whole number; -1 is another seed for every request."""
    found = whole(value)
    if found is None:
        raise wrong(name, "a whole number", value)
    return found if found == -1 else found & MAX_SEED


MODEL = Field(("model",), string, None)
STREAM = Field(("stream",), boolean, False)
SEED = Field(("seed",), seed, -1)
LOGIT_BIAS: Field[Bias, Bias] = Field(("logit_bias",), logit_bias, ())
IGNORE_EOS = Field(("ignore_eos",), boolean, False)

# Every generating route of every API has these.
COMMON: tuple[Field[object, object], ...] = (
    MODEL, STREAM, SEED, LOGIT_BIAS, IGNORE_EOS, *SAMPLING_FIELDS, *ENGINE_OPTIONS, *FORMATS,
)  # fmt: skip

STREAM_OPTIONS: Field[dict[str, object], dict[str, object]] = Field(
    ("stream_options",), mapping, {}
)
INCLUDE_USAGE = Field(("include_usage",), boolean, False)
STOP: Field[tuple[str, ...], tuple[str, ...]] = Field(("stop",), stop_strings, ())
RETURN_PROGRESS = Field(("return_progress",), boolean, False)
TIMINGS_PER_TOKEN = Field(("timings_per_token",), boolean, False)

VERBOSE = Field(("verbose",), boolean, False)

# OpenAI's chat and text completions have these too, and llama-server's own routes.
GENERATION: tuple[Field[object, object], ...] = (
    *COMMON, *PROBS_FIELDS, STREAM_OPTIONS, STOP, RETURN_PROGRESS, TIMINGS_PER_TOKEN,
    RESPONSE_FORMAT, VERBOSE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """`seed` None: another for every request; `sampling` holds the fields of SamplingParams that
    the request sets, `breakers` the texts that end a repetition for DRY; `logprobs` is the style
    in which probabilities are told, None for none; `form` the grammar of the answer; `left_out`
    names what the request has and the answer does not follow. `max_tokens` 0: the prompt is read,
    and nothing is said."""

    model: str | None
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    stops: tuple[str, ...]
    seed: int | None
    bias: Bias
    ignore_eos: bool
    sampling: dict[str, Any]
    breakers: tuple[str, ...] = ()
    logprobs: LogprobStyle | None = None
    return_progress: bool = False
    timings_per_token: bool = False
    options: EngineOptions = field(default_factory=EngineOptions)
    form: AnswerFormat | None = None
    left_out: tuple[str, ...] = ()
    is_verbose: bool = False  # the answer tells how it was made


def parse_common(
    body: Body,
    *,
    max_tokens: int | None,
    stops: tuple[str, ...] = (),
    n: int = 1,
    include_usage: bool = False,
    asked: Asked | None = None,
    form: AnswerFormat | None = None,
    left_out: tuple[str, ...] = (),
) -> GenerationRequest:
    """The common fields of a body whose field names have been checked, and what its API's own
    fields say. RequestError names the field at fault."""
    start, found = SEED.of(body), one_format(body, form)
    sampling = sampling_of_body(body, asked)
    return GenerationRequest(
        model=MODEL.of(body),
        stream=STREAM.of(body),
        include_usage=include_usage,
        max_tokens=max_tokens,
        n=n,
        stops=stops,
        seed=None if start == -1 else start,
        bias=LOGIT_BIAS.of(body),
        ignore_eos=IGNORE_EOS.of(body),
        sampling=sampling,
        breakers=BREAKERS.of(body),
        logprobs=style_of(sampling, asked),
        return_progress=RETURN_PROGRESS.of(body),
        timings_per_token=TIMINGS_PER_TOKEN.of(body),
        options=parse_engine_options(body),
        form=found,
        left_out=left_out + (() if found is None else found.left_out),
    )


def parse_generation(
    body: Body,
    *,
    max_tokens: int | None,
    n: int,
    asked: Asked | None = None,
    left_out: tuple[str, ...] = (),
) -> GenerationRequest:
    """The fields of GENERATION. RequestError names the field at fault."""
    options = STREAM_OPTIONS.of(body)
    left_out += check_stream_options(options)
    common = parse_common(
        body,
        max_tokens=max_tokens,
        stops=STOP.of(body),
        n=n,
        include_usage=INCLUDE_USAGE.of(options),
        asked=asked,
        form=RESPONSE_FORMAT.of(body),
        left_out=left_out,
    )
    return replace(common, is_verbose=VERBOSE.of(body))


def check_stream_options(options: Body) -> tuple[str, ...]:
    """Returns the names of what `stream_options` has and this server does not know."""
    return check_fields(
        options, (INCLUDE_USAGE,), "`stream_options`", STREAM_OPTION_RULES, "stream_options."
    )
