"""Arguments of calls between tags, as GLM-4.5 writes them: a call is the function's name, then each
argument's name between <arg_key> tags and its value between <arg_value> tags. A text stands there
as it is, any other value as JSON; the function's schema tells which it is.

Source: the chat templates of GLM-4.5, 4.6 and 4.7."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum, auto

from api.tools.strict_json import strict_json

KEY, KEY_END = "<arg_key>", "</arg_key>"
VALUE, VALUE_END = "<arg_value>", "</arg_value>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
TAGS = (CALL, KEY, KEY_END, VALUE, VALUE_END, CALL_END)

_UNIONS = ("anyOf", "oneOf", "allOf", "$ref", "not", "if")


class ValueKind(Enum):
    """What stands between the tags of a value."""

    TEXT = auto()
    JSON = auto()
    EITHER = auto()


def properties_of(schema: Mapping[str, object]) -> Mapping[str, object] | None:
    """Returns the schemas of a function's arguments by their names; None where a schema names
    none, and any are taken."""
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else None


def kind_of(schema: object) -> ValueKind:
    """Returns how a value of this schema is written."""
    if not isinstance(schema, Mapping):
        return ValueKind.EITHER
    said = schema.get("type")
    types = {said} if isinstance(said, str) else set(said) if isinstance(said, list) else set()
    values = schema.get("enum")
    if not types and isinstance(values, list) and values:
        types = {"string" if isinstance(value, str) else "other" for value in values}
    if not types or any(key in schema for key in _UNIONS):
        return ValueKind.EITHER
    if types == {"string"}:
        return ValueKind.TEXT
    return ValueKind.EITHER if "string" in types else ValueKind.JSON


def texts_of(schema: object) -> list[str] | None:
    """Returns the only texts that a value may be; None where it may be any."""
    values = schema.get("enum") if isinstance(schema, Mapping) else None
    if not isinstance(values, list) or not values:
        return None
    texts = [value for value in values if isinstance(value, str)]
    return texts if len(texts) == len(values) else None


def json_value(text: str, schema: object) -> str:
    """Returns the value between its tags as JSON. What is no JSON is a text."""
    if kind_of(schema) is not ValueKind.TEXT:
        try:
            value = strict_json(text)
        except (ValueError, RecursionError):
            pass
        else:
            return _written(value, text)
    return json.dumps(text, ensure_ascii=False)


def _written(value: object, text: str) -> str:
    """Returns a value as JSON; as it came where Python would write what no client reads."""
    try:
        told = json.dumps(value, ensure_ascii=False, allow_nan=False)
        told.encode()
    except (ValueError, RecursionError):
        return text.strip()
    return told
