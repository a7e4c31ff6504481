"""Narrows a JSON schema before it becomes a grammar, so that every answer comes to an end."""

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
_REFERENCES = frozenset({"$ref", "$dynamicRef"})
_OBJECT_WORDS = frozenset({"properties", "required", "anyOf", "oneOf", "additionalProperties"})
_DATA = frozenset({"enum", "const", "default", "examples"})  # keywords whose value is no schema
_TEXT_LIMITS = frozenset({"pattern", "maxLength", "minLength"})
_DATE = (  # of a year that every program knows: many begin to count at 1
    r"([1-9][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)"
    r"|(0[13578]|1[02])-31)|[1-9][0-9](0[48]|[2468][048]|[13579][26])-02-29)"
)
_TIME = (
    r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
# RFC 3339 lets a second have any number of digits, RFC 5321 an address 64 and 255 characters: a
# small model would take all it is given.
_PATTERNS = {
    "date": rf"^{_DATE}$",
    "time": rf"^{_TIME}$",
    "date-time": rf"^{_DATE}T{_TIME}$",
    "email": (
        r"^[A-Za-z0-9_+-]{1,20}(\.[A-Za-z0-9_+-]{1,20}){0,2}@"
        r"([A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?\.){1,3}[A-Za-z]{2,12}$"
    ),
}
_ALTERNATIVES = ("anyOf", "oneOf")
# Digits have no end in JSON either. So many are read by every program as they were written; numbers
# that a schema bounds have no exponents in llguidance anyway.
_MAX_NUMBER = 10**15
_PRECISION = 1e-9
_LOWER = frozenset({"minimum", "exclusiveMinimum"})
_UPPER = frozenset({"maximum", "exclusiveMaximum"})
_BY_NAME = ("properties", "$defs", "definitions")  # keywords whose value holds schemas by name


def closed(schema: Mapping[str, object]) -> dict[str, object]:
    """Returns the schema with objects closed: one that names its properties, and says nothing of
    others, gets no others, because a small model would never stop inventing some. Everything that
    the result allows, the schema allows too.

    Schemas that describe one object in several places (`allOf`, a `$ref` beside other words) are
    left as they are: closing each place would leave nothing.
    """
    bounded = _bounded(schema)
    assert isinstance(bounded, dict), "an object stays one"
    return bounded if _is_merged(bounded) else _closed(bounded)


def _is_merged(value: object) -> bool:
    """Returns whether the schema describes some object in several places."""
    if isinstance(value, list):
        return any(map(_is_merged, value))
    if not isinstance(value, dict):
        return False
    if "allOf" in value or (_REFERENCES & value.keys() and _OBJECT_WORDS & value.keys()):
        return True
    return any(_is_merged(inner) for key, inner in value.items() if key not in _DATA)


def _bounded(value: object) -> object:
    """Returns the schema with a pattern for each format whose texts have no greatest length, and
    limits for numbers."""
    if isinstance(value, list):
        return [_bounded(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {k: v if k in _DATA else _bounded(v) for k, v in value.items()}
    form = found.get("format")
    if isinstance(form, str) and form in _PATTERNS and not _TEXT_LIMITS.intersection(found):
        del found["format"]
        found["pattern"] = _PATTERNS[form]
    return found | _number_limits(found)


def _number_limits(schema: Mapping[str, object]) -> dict[str, object]:
    """Returns the bounds and the precision that a schema of numbers lacks."""
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if not {"integer", "number"}.intersection(k for k in kinds if isinstance(k, str)):
        return {}
    limits: dict[str, object] = {}
    for words, limit in ((_LOWER, -_MAX_NUMBER), (_UPPER, _MAX_NUMBER)):
        if not words.intersection(schema):
            limits[min(words, key=len)] = limit
    given = [schema.get(word) for word in _LOWER | _UPPER]
    if any(isinstance(n, int | float) and abs(n) >= _MAX_NUMBER for n in given):
        return {}  # larger numbers than ours are wanted
    if "number" in kinds and "multipleOf" not in schema:
        limits["multipleOf"] = _PRECISION
    return limits


def _closed(schema: Mapping[str, object]) -> dict[str, object]:
    apart = "properties" not in schema  # or its alternatives would say more of the same object
    found = {
        key: _inner(key, value) if apart or key not in _ALTERNATIVES else value
        for key, value in schema.items()
    }
    if "properties" in schema and not (_COMPOSING | _OPENING).intersection(schema):
        required = schema.get("required", [])
        named = schema["properties"]
        if (
            isinstance(named, dict)
            and isinstance(required, list)
            and all(name in named for name in required if isinstance(name, str))
        ):
            found["additionalProperties"] = False
    return found


def _inner(key: str, value: object) -> object:
    if key in _BY_NAME and isinstance(value, dict):
        return {name: _closed(v) if isinstance(v, dict) else v for name, v in value.items()}
    if key in ("items", "additionalProperties") and isinstance(value, dict):
        return _closed(value)
    if key in ("prefixItems", *_ALTERNATIVES) and isinstance(value, list):
        return [_closed(v) if isinstance(v, dict) else v for v in value]
    return value
