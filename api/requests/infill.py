"""POST /infill: a body about the hole in a text, as the tokens of a fill-in-the-middle prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.errors import ApiError
from api.requests.fields import Body, Field, string, wrong
from api.requests.native import NativeRequest, parse_native
from api.served_model import ServedModel
from dllama.errors import RequestError

MAX_EXTRA = 1024


@dataclass(frozen=True, slots=True)
class ExtraFile:
    """A text beside the one with the hole."""

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
MIDDLE = Field(("prompt",), string, "")  # what stands in the hole already
INFILL: tuple[Field[object, object], ...] = (PREFIX, SUFFIX, EXTRA, MIDDLE)


@dataclass(frozen=True, slots=True)
class InfillParts:
    """A text with a hole between `prefix` and `suffix`, and texts beside it."""

    prefix: str
    suffix: str
    middle: str = ""
    extra: tuple[ExtraFile, ...] = ()


def parse_infill(body: Body, route: str) -> tuple[NativeRequest, InfillParts]:
    """A body of /infill; RequestError names the field at fault."""
    request = parse_native(body, route, *INFILL)
    prefix, suffix = PREFIX.of(body), SUFFIX.of(body)
    for name, value in (("input_prefix", prefix), ("input_suffix", suffix)):
        if value is None:
            raise RequestError(f"`{name}` is missing; send a string.", param=name)
    return request, InfillParts(prefix or "", suffix or "", MIDDLE.of(body), EXTRA.of(body))


def infill_ids(model: ServedModel, parts: InfillParts) -> list[int]:
    """The prompt that asks for the middle: the extra files, the prefix, the suffix, and the token
    after which the middle follows. ApiError 501 for a vocabulary without such tokens."""
    fim = model.facts.fim
    if fim is None:
        raise ApiError(
            501,
            f"The vocabulary of {model.id} has no tokens for filling a hole (fill-in-the-middle); "
            "serve a code model that was trained for it.",
            "not_supported_error",
        )

    def ids(text: str) -> list[int]:
        return model.tokenizer.encode(text)

    prompt: list[int] = []
    if fim.repo is not None:
        prompt += [fim.repo, *ids("myproject\n")]
    for extra in parts.extra:
        if fim.separator is not None:
            prompt += [fim.separator, *ids(f"{extra.name}\n")]
        prompt += ids(extra.text)
    if fim.separator is not None and (parts.extra or fim.repo is not None):
        prompt += [fim.separator, *ids("filename\n")]
    prompt += [fim.prefix, *ids(parts.prefix), *ids(parts.middle)]
    prompt += [fim.suffix, *ids(parts.suffix), fim.middle]
    bos = model.tokenizer.encode("", add_special=True)
    return [*bos, *prompt]
