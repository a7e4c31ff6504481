"""What is done to a JSON schema before it becomes a grammar."""

from __future__ import annotations

from collections.abc import Mapping

# Keywords that take an object's properties from more than one place.
_COMPOSING = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "$ref", "$dynamicRef"}
)
_OPENING = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames",
     "minProperties"}
)  # fmt: skip
_SHARING = ("$ref", "$dynamicRef", "$defs", "definitions", "allOf")
_BY_NAME = ("properties",)  # keywords whose value holds schemas by name


def closed(schema: Mapping[str, object]) -> dict[str, object]:
    """The schema, but an object that names its properties, and says nothing of others, has no
    others: a small model would never stop to invent some. All that the result allows, the
    schema allows too.

    Schemas that describe one object in several places are left as they are: closing each place
    would leave nothing. So what `$ref` and `allOf` reach stays open unless it says otherwise.
    """
    return dict(schema) if any(word in schema for word in _SHARING) else _closed(schema)


def _closed(schema: Mapping[str, object]) -> dict[str, object]:
    found = {key: _inner(key, value) for key, value in schema.items()}
    if "properties" in schema and not (_COMPOSING | _OPENING).intersection(schema):
        required = schema.get("required", [])
        named = schema["properties"]
        if isinstance(named, dict) and isinstance(required, list) and named.keys() >= set(required):
            found["additionalProperties"] = False
    return found


def _inner(key: str, value: object) -> object:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: _closed(v) if isinstance(v, dict) else v for name, v in value.items()}
    if key in ("items", "additionalProperties") and isinstance(value, dict):
        return _closed(value)
    if key == "prefixItems" and isinstance(value, list):
        return [_closed(v) if isinstance(v, dict) else v for v in value]
    return value
