"""Every field of a request body: its names, its type and range, its default. Honour or refuse:
a field that is neither in a `Field` nor in one of the tables below is answered with a 400.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from dllama.engine.sampling.parameters import Number
from dllama.errors import RequestError
from dllama.requests import SAMPLING_NUMBERS

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S_co = TypeVar("S_co", covariant=True)
Reader = Callable[[object, str], T]  # (value, name) -> value, or RequestError naming the field
Body = Mapping[str, object]

MAX_INT = 2**31 - 1  # more tokens than any context has
MAX_SEED = 2**63 - 1  # what a msgpack integer and an int64 both hold
MAX_STOPS = 64
MAX_STOP_CHARS = 4096  # of all stop strings together; they are searched for in every character
SHOWN_CHARS = 60  # of a wrong value, in the message about it


@dataclass(frozen=True, slots=True)
class Field(Generic[T_co, S_co]):
    """A field under one or more names; null or absent means `default`."""

    names: tuple[str, ...]
    read: Reader[T_co]
    default: S_co

    def of(self, body: Body) -> T_co | S_co:
        """Its value in `body`; RequestError if it is of a wrong kind, or two names disagree."""
        found: list[tuple[str, T_co]] = []
        for name in self.names:
            value = body.get(name)
            if value is not None:
                found.append((name, self.read(value, name)))
        if not found:
            return self.default
        for name, value in found[1:]:
            if value != found[0][1]:
                raise RequestError(
                    f"`{found[0][0]}` and `{name}` mean the same and have different values; "
                    "send one of them.",
                    param=name,
                )
        return found[0][1]


def wrong(name: str, wanted: str, value: object) -> RequestError:
    """The sentence about a value that is not what the field takes."""
    try:
        shown = orjson.dumps(value, default=repr).decode()
    except orjson.JSONEncodeError:
        shown = repr(value)
    if len(shown) > SHOWN_CHARS:
        shown = shown[:SHOWN_CHARS] + "…"
    return RequestError(f"`{name}` must be {wanted}, but is {shown}.", param=name)


def number(low: float, high: float) -> Reader[float]:
    """A number from `low` to `high`."""
    wanted = f"a number from {low:g} to {high:g}"

    def read(value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong(name, wanted, value)
        if not low <= value <= high:
            raise wrong(name, wanted, value)
        return float(value)

    return read


def integer(low: int, high: int) -> Reader[int]:
    """A whole number from `low` to `high`; 1.0 is not one."""
    wanted = f"a whole number from {low} to {high}"

    def read(value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(name, wanted, value)
        return value

    return read


def boolean(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


def string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise wrong(name, "a string", value)
    return value


def mapping(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise wrong(name, "an object", value)
    return value


def a_list(value: object, path: str) -> list[object]:
    if not isinstance(value, list):
        raise wrong(path, "a list", value)
    return value


def a_text(source: Mapping[str, object], name: str, path: str) -> str:
    """The text under `name`, which has to be there."""
    value = source.get(name)
    if not isinstance(value, str):
        raise wrong(f"{path}.{name}", "a string", value)
    return value


def stop_strings(value: object, name: str) -> tuple[str, ...]:
    """A string or a list of strings, none of them empty; duplicates count once."""
    stops = [value] if isinstance(value, str) else value
    wanted = f"a string or a list of at most {MAX_STOPS} strings, none of them empty"
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise wrong(name, wanted, value)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise wrong(name, wanted, value)
    if sum(map(len, stops)) > MAX_STOP_CHARS:
        raise wrong(name, f"at most {MAX_STOP_CHARS} characters in all", value)
    return tuple(dict.fromkeys(stops))


Bias = tuple[tuple[int | str, float], ...]  # of a token id, or of every token of a text


def logit_bias(value: object, name: str) -> Bias:
    """OpenAI's {"id": bias}, or llama-server's {"text": bias} and [[id or text, bias], ...]; the
    bias false is minus infinity."""
    wanted = 'an object like {"1734": -100} or a list like [[1734, -100], ["text", false]]'

    def bias(amount: object, where: str) -> float:
        return float("-inf") if amount is False else number(-100, 100)(amount, where)

    pairs: list[tuple[int | str, float]] = []
    if isinstance(value, dict):
        for key, amount in value.items():
            is_id = key.isascii() and key.isdigit() and len(key) <= 10
            pairs.append((int(key) if is_id else key, bias(amount, f"{name}.{key:.60}")))
    elif isinstance(value, list):
        for i, pair in enumerate(value):
            if not isinstance(pair, list) or len(pair) != 2:
                raise wrong(name, wanted, pair)
            key, amount = pair
            if isinstance(key, bool) or not isinstance(key, int | str):
                raise wrong(name, wanted, pair)
            pairs.append((key, bias(amount, f"{name}[{i}][1]")))
    else:
        raise wrong(name, wanted, value)
    return tuple(pairs)


def sampling_number(described: Number) -> Reader[float]:
    """Reads a number of SamplingParams; one below the engine's range means its lower end."""
    low, high = described.requested
    if described.type is float:
        return number(low, high)
    read = integer(int(low), int(min(high, MAX_INT)))
    return lambda value, name: max(read(value, name), int(described.bounds.low))


# Fields of SamplingParams that a request sets under the same name.
SAMPLING = {n.name: sampling_number(n) for n in SAMPLING_NUMBERS}

# Ignored on purpose: none of them could change the answer.
IGNORED = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "prompt_cache_options", "prediction", "backend_sampling",
    }
)  # fmt: skip

# Known, but not served: accepted only with a value that means "off".
OFF: dict[str, tuple[object, ...]] = {
    # of OpenAI
    "logprobs": (False,), "top_logprobs": (0,), "echo": (False,), "suffix": ("",),
    "functions": ([],), "function_call": ("none", "auto"),
    "modalities": (["text"],), "audio": (), "web_search_options": (),
    "verbosity": ("medium",),
    # of llama-server
    "adaptive_target": (-1,),
    "adaptive_decay": (0.9,),
    "return_tokens": (False,),
    "lora": ([],), "n_discard": (0,), "n_cache_reuse": (0,),
    "t_max_predict_ms": (-1, 0), "n_indent": (0,),
    "response_fields": ([],), "reasoning_control": (False,), "reasoning_budget_tokens": (-1,),
    "thinking_budget_tokens": (-1,), "reasoning_budget_message": ("",),
}  # fmt: skip


def same(a: object, b: object) -> bool:
    """Equality that keeps false and 0 apart, as JSON does."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def check_fields(body: Body, fields: Sequence[Field[object, object]], route: str) -> None:
    """Raises RequestError for the first field of `body` that is neither honoured, nor ignored on
    purpose, nor off."""
    known = {name for field in fields for name in field.names}
    for name, value in body.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in OFF:
            raise unknown_field(name, route)
        check_off(name, value, name)


def check_names(body: Body, names: Collection[str], route: str) -> None:
    """Raises RequestError for the first field of `body` whose name is neither among `names` nor
    ignored on purpose: for bodies of APIs that have no use for `OFF`."""
    for name, value in body.items():
        if name not in names and name not in IGNORED and value is not None:
            raise unknown_field(name, route)


def unknown_field(name: str, route: str) -> RequestError:
    return RequestError(
        f"{route} knows no field `{name:.100}`; leave it out, because ignoring it could "
        "change the answer.",
        param=name[:100],
    )


def check_off(name: str, value: object, path: str) -> None:
    """Raises RequestError, naming `path`, unless `value` turns off the field `name` of `OFF`."""
    if not any(same(value, off) for off in OFF[name]):
        offs = [orjson.dumps(off).decode() for off in OFF[name]]
        raise RequestError(
            f"`{path}` is not supported by this server; leave it out"
            + (f" or send {' or '.join(offs)}." if offs else "."),
            param=path,
        )


def unsupported(path: str, kind: object, taken: str) -> RequestError:
    """The error about a part of a message, a tool or the like that this server cannot take."""
    return RequestError(
        f"`{path}` is of the type {str(kind)[:60]!r}; this server takes {taken}.",
        param=f"{path}.type",
    )
