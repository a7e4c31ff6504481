"""Schemas that compile: what still makes no grammar, although it has only keywords that grammars
know (it contradicts itself, or is too large), is relaxed where it fails and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

MAX_TRIES = 100  # compilations for one schema
_BY_NAME = ("properties", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")
# Left out one after the other, until what is left compiles: the least important first.
_DROPPED = (
    "minProperties", "maxProperties", "patternProperties", "allOf", "pattern", "format",
    "minLength", "maxLength", "multipleOf", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minItems", "maxItems", "prefixItems", "items", "additionalProperties",
    "required", "oneOf", "anyOf", "$ref", "enum", "const", "properties", "type",
)  # fmt: skip

Schema = Mapping[str, object]
Compiles = Callable[[dict[str, object]], bool]


def relaxed(schema: Schema, compiles: Compiles) -> dict[str, object]:
    """Returns the schema with less keywords, so that it compiles; as it is, if it does."""
    return _Relaxing(compiles, schema.get("$defs")).whole(schema)


class _Relaxing:
    def __init__(self, compiles: Compiles, definitions: object) -> None:
        self._compiles = compiles
        self._definitions = dict(definitions) if isinstance(definitions, dict) else {}
        self._n_left = MAX_TRIES

    def whole(self, schema: Schema) -> dict[str, object]:
        found = {key: value for key, value in schema.items() if key != "$defs"}
        if self._is_good(found):
            return self._with_definitions(found)
        for name, definition in self._definitions.items():
            self._definitions[name] = self._part(definition)
        found = self._part(found)
        return self._with_definitions(found) if self._n_left > 0 else {}

    def _with_definitions(self, schema: dict[str, object]) -> dict[str, object]:
        return {**schema, "$defs": self._definitions} if self._definitions else schema

    def _is_good(self, schema: dict[str, object]) -> bool:
        if self._n_left <= 0:
            return False
        self._n_left -= 1
        return self._compiles(self._with_definitions(schema))

    def _part(self, value: object) -> dict[str, object]:
        """Returns a part of the schema that compiles; anything at all for one that allows
        nothing."""
        if not isinstance(value, dict):
            return {}
        if self._is_good(value):
            return value
        found = {key: self._inner(key, inner) for key, inner in value.items()}
        for key in _DROPPED:
            if self._is_good(found):
                return found
            found.pop(key, None)
        return {}

    def _inner(self, key: str, value: object) -> object:
        if key in _BY_NAME and isinstance(value, dict):
            return {name: self._part(inner) for name, inner in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self._part(inner) for inner in value]
        if key in _SINGLE and isinstance(value, dict):
            return self._part(value)
        return value
