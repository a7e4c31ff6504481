"""JSON schemas of many kinds, drawn at random from a seed, to test structured output with."""

from __future__ import annotations

import random
from collections.abc import Callable

Schema = dict[str, object]
MAX_DEPTH = 3
_NAMES = ("name", "age", "tags", "price", "is_open", "id", "due", "address", "note", "größe", "a b")
_WORDS = ("red", "green", "blue", "small", "large", 'say "hi"', "tab\there", "é", "")
_PATTERNS = (r"^[a-z]{2,6}$", r"^[A-Z]{3}-\d{4}$", r"^(yes|no|maybe)$", r"^\d{1,3}(\.\d{1,3}){3}$")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")


def random_schema(seed: int) -> Schema:
    """A schema of an object, the same for the same seed."""
    rng = random.Random(seed)
    schema = _object(rng, 0)
    if rng.random() < 0.1:
        schema["$defs"] = {"node": _tree()}
        properties = schema["properties"]
        assert isinstance(properties, dict)
        properties["tree"] = {"$ref": "#/$defs/node"}
        schema["additionalProperties"] = False
    return schema


def _tree() -> Schema:
    children: Schema = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1}
    return {
        "type": "object",
        "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 9}, "next": children},
        "required": ["value", "next"],
        "additionalProperties": False,
    }


def _value(rng: random.Random, depth: int) -> Schema:
    kinds = _LEAVES if depth >= MAX_DEPTH else (*_LEAVES, _object, _array, _any_of)
    return rng.choice(kinds)(rng, depth)


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_NAMES, rng.randint(1, 4))
    schema: Schema = {
        "type": "object",
        "properties": {name: _value(rng, depth + 1) for name in names},
        "required": [name for name in names if rng.random() < 0.7],
    }
    if rng.random() < 0.5:
        schema["additionalProperties"] = False
    return schema


def _array(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(0, 2)
    return {
        "type": "array", "items": _value(rng, depth + 1), "minItems": low,
        "maxItems": low + rng.randint(0, 3),
    }  # fmt: skip


def _any_of(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_value(rng, depth + 1) for _ in range(rng.randint(2, 3))]}


def _string(rng: random.Random, depth: int) -> Schema:
    schema: Schema = {"type": "string"}
    kind = rng.randrange(5)
    if kind == 0:
        schema["pattern"] = rng.choice(_PATTERNS)
    elif kind == 1:
        schema["format"] = rng.choice(_FORMATS)
    elif kind == 2:
        schema["minLength"] = rng.randint(0, 5)
        schema["maxLength"] = rng.randint(5, 30)
    elif kind == 3:
        schema["enum"] = rng.sample(_WORDS, 3)
    else:
        schema["maxLength"] = 80
    return schema


def _integer(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(-1000, 1000)
    bounds: list[Schema] = [{}, {"minimum": low}, {"minimum": low, "maximum": low + 100}]
    return {"type": "integer", **rng.choice(bounds)}


def _number(rng: random.Random, depth: int) -> Schema:
    bounds: list[Schema] = [{}, {"minimum": 0, "exclusiveMaximum": 1}, {"maximum": 2.5}]
    return {"type": "number", **rng.choice(bounds)}


def _fixed(rng: random.Random, depth: int) -> Schema:
    return rng.choice(
        ({"type": "boolean"}, {"type": "null"}, {"const": "fixed"}, {"enum": [1, "two", None, [3]]})
    )


_LEAVES: tuple[Callable[[random.Random, int], Schema], ...] = (_string, _integer, _number, _fixed)
