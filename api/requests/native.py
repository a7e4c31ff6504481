"""Bodies of llama-server's own routes /completion and /infill, once checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.requests.engine_options import ID_SLOT
from api.requests.fields import MAX_INT, Body, Field, boolean, integer, string, whole, wrong
from api.requests.generation import GENERATION, MAX_N, GenerationRequest, parse_generation
from api.requests.verdicts import NATIVE as NATIVE_RULES
from api.requests.verdicts import check_fields
from dllama.errors import RequestError

MixedPrompt = str | list[int | str]  # one prompt; a list mixes ids and texts
PROMPT_STRING, MULTIMODAL_DATA = "prompt_string", "multimodal_data"
MAX_RESPONSE_FIELDS = 100
MAX_EXTRA = 1024


def one_prompt(value: object, name: str) -> MixedPrompt:
    """A text, also as llama-server's {"prompt_string": text}, or a list of ids and texts."""
    if isinstance(value, dict) and value.keys() <= {PROMPT_STRING, MULTIMODAL_DATA}:
        if value.get(MULTIMODAL_DATA):
            raise RequestError(
                f"`{name}.{MULTIMODAL_DATA}` has images or sound, which no model here takes; leave "
                "it out.",
                param=f"{name}.{MULTIMODAL_DATA}",
            )
        value = value.get(PROMPT_STRING)
    if isinstance(value, str):
        return value
    wanted = "a string, a list of token ids and strings, or a list of those"
    if not isinstance(value, list):
        raise wrong(name, wanted, value)
    parts = [item if isinstance(item, str) else whole(item) for item in value]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise wrong(name, wanted, value)
    return found


def native_prompts(value: object, name: str) -> tuple[list[MixedPrompt], bool]:
    """The prompts, and whether they came as a list. Strings alone are prompts of their own;
    with ids among them they are parts of one."""
    if isinstance(value, list) and value:
        is_mixed = any(whole(item) is not None for item in value)
        if not is_mixed or any(isinstance(item, list | dict) for item in value):
            return [one_prompt(item, f"{name}[{i}]") for i, item in enumerate(value)], True
    return [one_prompt(value, name)], False


def field_names(value: object, name: str) -> tuple[str, ...]:
    wanted = f"a list of at most {MAX_RESPONSE_FIELDS} names of fields, such as timings/prompt_n"
    if not isinstance(value, list) or len(value) > MAX_RESPONSE_FIELDS:
        raise wrong(name, wanted, value)
    if not all(isinstance(item, str) for item in value):
        raise wrong(name, wanted, value)
    return tuple(value)


PROMPT = Field(("prompt",), native_prompts, None)
N_PREDICT = Field(
    ("n_predict", "max_tokens", "max_completion_tokens"), integer(-1, MAX_INT), -1
)  # -1: as far as the context goes
N = Field(("n", "n_cmpl"), integer(1, MAX_N), 1)
RETURN_TOKENS = Field(("return_tokens",), boolean, False)
T_MAX_PREDICT_MS = Field(("t_max_predict_ms",), integer(-1, MAX_INT), -1)
N_INDENT = Field(("n_indent",), integer(0, MAX_INT), 0)
RESPONSE_FIELDS: Field[tuple[str, ...], tuple[str, ...]] = Field(
    ("response_fields",), field_names, ()
)
SSE_PING_INTERVAL = Field(("sse_ping_interval",), integer(-1, 86_400), None)
NATIVE: tuple[Field[object, object], ...] = (
    N_PREDICT, N, RETURN_TOKENS, T_MAX_PREDICT_MS, N_INDENT, RESPONSE_FIELDS, SSE_PING_INTERVAL,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """`generation` is what all routes share. With `n_predict` 0 the prompt is only read, -1 is
    without a limit. The answer ends with a line that ends later than `max_line_s`, or before one
    that is indented by less than `n_indent`. `ping_s` None is the server's own."""

    generation: GenerationRequest
    n_predict: int
    return_tokens: bool
    max_line_s: float | None
    n_indent: int
    response_fields: tuple[str, ...]
    ping_s: float | None
    id_slot: int = -1  # the session's number, as llama-server has it; -1 for none


def parse_native(body: Body, route: str, *own: Field[object, object]) -> NativeRequest:
    """Parses the shared and native fields of a body; `own` are more fields of the route.
    RequestError names the field at fault."""
    left_out = check_fields(body, (*GENERATION, *NATIVE, *own), route, NATIVE_RULES)
    n_predict = N_PREDICT.of(body)
    # Nothing is read without drawing a token: for 0 it is drawn and not told.
    max_tokens = None if n_predict < 0 else max(n_predict, 1)
    generation = parse_generation(body, max_tokens=max_tokens, n=N.of(body), left_out=left_out)
    ping, limit_ms = SSE_PING_INTERVAL.of(body), T_MAX_PREDICT_MS.of(body)
    return NativeRequest(
        generation=generation,
        n_predict=n_predict,
        return_tokens=RETURN_TOKENS.of(body),
        max_line_s=limit_ms / 1000 if limit_ms > 0 else None,
        n_indent=N_INDENT.of(body),
        response_fields=RESPONSE_FIELDS.of(body),
        id_slot=ID_SLOT.of(body),
        ping_s=None if ping is None else float("inf") if ping < 1 else float(ping),
    )


def parse_native_completion(
    body: Body, route: str
) -> tuple[NativeRequest, list[MixedPrompt], bool]:
    """Parses a body of /completion: the request, its prompts, and true if the answer is an
    array."""
    request = parse_native(body, route, PROMPT)
    found = PROMPT.of(body)
    if found is None:
        raise RequestError(
            "`prompt` is missing; send a string, a list of token ids, or a list of those.",
            param="prompt",
        )
    prompts, is_list = found
    return request, prompts, is_list or request.generation.n > 1


@dataclass(frozen=True, slots=True)
class ExtraFile:
    """An additional context file."""

    name: str
    text: str


def extra_files(value: object, name: str) -> tuple[ExtraFile, ...]:
    if not isinstance(value, list) or len(value) > MAX_EXTRA:
        raise wrong(name, f"a list of at most {MAX_EXTRA} files", value)
    return tuple(extra_file(item, f"{name}[{i}]") for i, item in enumerate(value))


def extra_file(value: object, path: str) -> ExtraFile:
    if not isinstance(value, Mapping) or not value.keys() <= {"filename", "text"}:
        raise wrong(path, 'an object like {"filename": "a.py", "text": "..."}', value)
    text = string(value.get("text"), f"{path}.text")
    name = value.get("filename")
    return ExtraFile("tmp" if name is None else string(name, f"{path}.filename"), text)


PREFIX = Field(("input_prefix",), string, None)
SUFFIX = Field(("input_suffix",), string, None)
EXTRA: Field[tuple[ExtraFile, ...], tuple[ExtraFile, ...]] = Field(
    ("input_extra",), extra_files, ()
)
MIDDLE = Field(("prompt",), string, "")
INFILL: tuple[Field[object, object], ...] = (PREFIX, SUFFIX, EXTRA, MIDDLE)


@dataclass(frozen=True, slots=True)
class InfillParts:
    """A text with a gap between `prefix` and `suffix`, of which `middle` is filled in already, and
    additional files."""

    prefix: str
    suffix: str
    middle: str = ""
    extra: tuple[ExtraFile, ...] = ()


def parse_infill(body: Body, route: str) -> tuple[NativeRequest, InfillParts]:
    """Parses a body of /infill. RequestError names the field at fault."""
    request = parse_native(body, route, *INFILL)
    prefix, suffix = PREFIX.of(body), SUFFIX.of(body)
    for name, value in (("input_prefix", prefix), ("input_suffix", suffix)):
        if value is None:
            raise RequestError(f"`{name}` is missing; send a string.", param=name)
    return request, InfillParts(prefix or "", suffix or "", MIDDLE.of(body), EXTRA.of(body))
