"""The fields of a request body that are honoured: their names, types, ranges and defaults. What
becomes of all others is in verdicts.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
MAX_BIAS = 1e6  # of a logit: more is the same
SHOWN_CHARS = 60  # of a wrong value, in the message about it


@dataclass(frozen=True, slots=True)
class Field(Generic[T_co, S_co]):
    """A field under one or more names, of which the first that is sent counts; null or absent
    means `default`."""

    names: tuple[str, ...]
    read: Reader[T_co]
    default: S_co

    def of(self, body: Body) -> T_co | S_co:
        """Its value in `body`; RequestError if it is of a wrong kind."""
        for name in self.names:
            value = body.get(name)
            if value is not None:
                return self.read(value, name)
        return self.default


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
        found = a_number(value, name, wanted)
        if not low <= found <= high:
            raise wrong(name, wanted, value)
        return float(found)

    return read


def a_number(value: object, name: str, wanted: str = "a number") -> float:
    """Any number, which true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, wanted, value)
    return value


def integer(low: int, high: int) -> Reader[int]:
    """A whole number from `low` to `high`; 1.0 is one, as JSON Schema has it."""
    wanted = f"a whole number from {low} to {high}"

    def read(value: object, name: str) -> int:
        found = whole(value)
        if found is None or not low <= found <= high:
            raise wrong(name, wanted, value)
        return found

    return read


def whole(value: object) -> int | None:
    """The whole number that a JSON number is, None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def token_limit(value: object, name: str) -> int | None:
    """The number of tokens of an answer, 0 too; -1 is without a limit, and so is what no context
    holds."""
    limit = integer(-1, MAX_SEED)(value, name)
    return None if limit < 0 or limit > MAX_INT else limit


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
    """A string or a list of strings; empty ones stop nothing, and duplicates count once."""
    stops = [value] if isinstance(value, str) else value
    wanted = f"a string or a list of at most {MAX_STOPS} strings"
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise wrong(name, wanted, value)
    if not all(isinstance(stop, str) for stop in stops):
        raise wrong(name, wanted, value)
    if sum(map(len, stops)) > MAX_STOP_CHARS:
        raise wrong(name, f"at most {MAX_STOP_CHARS} characters in all", value)
    return tuple(dict.fromkeys(stop for stop in stops if stop))


Bias = tuple[tuple[int | str, float], ...]  # of a token id, or of every token of a text


def logit_bias(value: object, name: str) -> Bias:
    """OpenAI's {"id": bias}, or llama-server's {"text": bias} and [[id or text, bias], ...]; the
    bias false is minus infinity."""
    wanted = 'an object like {"1734": -100} or a list like [[1734, -100], ["text", false]]'

    def bias(amount: object, where: str) -> float:
        if amount is False:
            return float("-inf")
        return max(-MAX_BIAS, min(MAX_BIAS, a_number(amount, where)))

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
            token = key if isinstance(key, str) else whole(key)
            if token is None:
                raise wrong(name, wanted, pair)
            pairs.append((token, bias(amount, f"{name}[{i}][1]")))
    else:
        raise wrong(name, wanted, value)
    return tuple(pairs)


def sampling_number(described: Number) -> Reader[float]:
    """Reads a number of SamplingParams; one outside the engine's range means its nearest end."""
    low, high = described.bounds.low, described.bounds.high
    wanted = f"a {'whole ' if described.type is int else ''}number from {low:g} on"

    def read(value: object, name: str) -> float:
        if name == "dry_base" and a_number(value, name) < low:
            return described.default  # as llama-server has it
        found = a_number(value, name, wanted) if described.type is float else whole(value)
        if found is None or found != found or (found < low and described.bounds.is_hard):
            raise wrong(name, wanted, value)
        near = max(low, min(found, high, MAX_INT))
        return int(near) if described.type is int else float(near)

    return read


# Fields of SamplingParams that a request sets under the same name.
SAMPLING = {n.name: sampling_number(n) for n in SAMPLING_NUMBERS}


def unsupported(path: str, kind: object, taken: str) -> RequestError:
    """The error about a part of a message, a tool or the like that this server cannot take."""
    return RequestError(
        f"`{path}` is of the type {str(kind)[:60]!r}; this server takes {taken}.",
        param=f"{path}.type",
    )


def type_of(found: Mapping[str, object]) -> str | None:
    """Returns the `type` of an object; None where there is none, or one that is no text."""
    kind = found.get("type")
    return kind if isinstance(kind, str) else None
