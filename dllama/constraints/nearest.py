"""The nearest schema that a grammar can hold: everything that the client's schema allows, and as
little more as possible. JSON Schema has keywords that no grammar knows; a tool whose schema has
one of them is still a tool.

What a schema loses is a `Fault`, so that those who asked for `strict` are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from dllama.constraints.patterns import is_format, nearest_pattern

MAX_DEPTH = 40  # llguidance reads JSON of 128 levels, and a schema may take two
MAX_REFERENCES = 1024
MAX_LEAST = 100_000  # of minLength and minItems: no context holds more
MAX_MOST = 1_000_000  # of maxLength and maxItems: more is no limit
PRECISE = (1e-9, 1e9)  # what multipleOf may be

# Keywords of draft 2020-12 and of older drafts that narrow a value, and that no grammar knows.
UNSUPPORTED = frozenset(
    {
        "not", "if", "then", "else", "propertyNames", "uniqueItems", "contains", "minContains",
        "maxContains", "dependentRequired", "dependentSchemas", "dependencies",
        "unevaluatedProperties", "unevaluatedItems",
    }
)  # fmt: skip
_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
_PAIRS = (
    ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """A keyword that was changed or left out. `is_malformed`: JSON Schema does not know such a
    value, so that nobody can hold an answer to it."""

    path: str  # a JSON pointer
    is_malformed: bool
    value: object = field(compare=False)


@dataclass(slots=True)
class Nearest:
    """A schema without the keywords in `faults`; all its references lead to its own `$defs`."""

    schema: dict[str, object] | bool
    faults: list[Fault] = field(default_factory=list)


def nearest(schema: object) -> Nearest:
    """Returns the nearest schema."""
    walk = _Walk(schema)
    found = walk.schema(schema, "", 0)
    if walk.definitions and isinstance(found, dict):
        found = {**found, "$defs": walk.definitions}
    return Nearest(found, walk.faults)


class _Gone:
    """Stands for a keyword that is left out."""


_GONE = _Gone()
_Rule = Callable[["_Walk", object, str, int], object]


class _Walk:
    """One pass over a schema."""

    def __init__(self, root: object) -> None:
        self.faults: list[Fault] = []
        self.definitions: dict[str, object] = {}
        self._root = root
        self._names: dict[str, str] = {}  # of definitions, by the references to them

    def fault(self, path: str, value: object, *, is_malformed: bool) -> _Gone:
        self.faults.append(Fault(path, is_malformed, value))
        return _GONE

    def schema(self, value: object, path: str, depth: int) -> dict[str, object] | bool:
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict) or depth > MAX_DEPTH:
            self.fault(path or "/", value, is_malformed=not isinstance(value, dict))
            return True
        found: dict[str, object] = {}
        for key, inner in _modern(value).items():
            where = f"{path}/{key}"
            if key in UNSUPPORTED:
                if inner is not False or key in ("not", "if"):  # `uniqueItems: false` says nothing
                    self.fault(where, inner, is_malformed=False)
            elif key in _RULES:
                kept = _RULES[key](self, inner, where, depth)
                if kept is not _GONE:
                    found[key] = kept
        if self.faults and _n_names(found) < _n_names(value):
            found.pop("additionalProperties", None)  # the lost patterns allowed some
        self._check_limits(found, path)
        return found

    def _check_limits(self, found: dict[str, object], path: str) -> None:
        """Leaves out limits that contradict each other."""
        for low, high in _PAIRS:
            least, most = found.get(low), found.get(high)
            if isinstance(least, int) and isinstance(most, int) and least > most:
                self.fault(f"{path}/{low}", least, is_malformed=False)
                del found[low], found[high]

    def reference(self, value: object, path: str, depth: int) -> object:
        if not isinstance(value, str):
            return self.fault(path, value, is_malformed=True)
        if value not in self._names:
            target = _target(self._root, value)
            is_local = value.startswith("#")
            if target is None or len(self._names) >= MAX_REFERENCES:
                return self.fault(path, value, is_malformed=is_local)
            name = self._names[value] = f"d{len(self._names)}"
            self.definitions[name] = True  # until the target, which may refer to itself, is known
            self.definitions[name] = self.schema(target, value.removeprefix("#"), depth + 1)
        return f"#/$defs/{self._names[value]}"


def _n_names(schema: Mapping[str, object]) -> int:
    patterns = schema.get("patternProperties")
    return len(patterns) if isinstance(patterns, dict) else 0


def _step(name: str) -> str:
    """Returns a name as a JSON pointer has it."""
    return name.replace("~", "~0").replace("/", "~1")


def _modern(schema: Mapping[str, object]) -> Mapping[str, object]:
    """Returns a schema with the words that older drafts and OpenAPI have for the same things in
    those of draft 2020-12."""
    found = dict(schema)
    if isinstance(found.get("items"), list):
        found["prefixItems"] = found.pop("items")
        if "additionalItems" in found:
            found["items"] = found.pop("additionalItems")
    for bound, other in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(bound), bool):
            is_exclusive = found.pop(bound)
            if is_exclusive and other in found:
                found[bound] = found.pop(other)
    if "$dynamicRef" in found and "$ref" not in found:
        found["$ref"] = found.pop("$dynamicRef")
    kind = found.get("type")
    if found.get("nullable") is True and kind is not None:
        kinds = kind if isinstance(kind, list) else [kind]
        found["type"] = [*kinds, "null"]
    return found


def _target(root: object, reference: str) -> object:
    """Returns what a reference within the schema leads to, None for nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return _anchored(root, reference.removeprefix("#"), 0)
    found = root
    for step in reference[2:].split("/"):
        key = step.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _anchored(value: object, name: str, depth: int) -> object:
    """Returns the first schema of an `$anchor`, a `$dynamicAnchor` or an `$id`."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, dict):
        if name in (value.get("$anchor"), value.get("$dynamicAnchor"), value.get("$id")):
            return value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            found = _anchored(inner, name, depth + 1)
            if found is not None:
                return found
    return None


def _inner(walk: _Walk, value: object, path: str, depth: int) -> object:
    return walk.schema(value, path, depth + 1)


def _by_name(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, dict):
        return walk.fault(path, value, is_malformed=True)
    return {name: walk.schema(v, f"{path}/{_step(name)}", depth + 1) for name, v in value.items()}


def _by_pattern(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, dict):
        return walk.fault(path, value, is_malformed=True)
    found = {}
    for pattern, inner in value.items():
        where = f"{path}/{_step(pattern)}"
        if nearest_pattern(pattern) == pattern:
            found[pattern] = walk.schema(inner, where, depth + 1)
        else:
            walk.fault(where, inner, is_malformed=False)
    return found or _GONE


def _alternatives(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, list) or not value:
        return walk.fault(path, value, is_malformed=True)
    return [walk.schema(inner, f"{path}/{i}", depth + 1) for i, inner in enumerate(value)]


def _type(walk: _Walk, value: object, path: str, depth: int) -> object:
    if isinstance(value, str) and value in _TYPES:
        return value
    kinds = value if isinstance(value, list) else [value]
    known = [kind for kind in kinds if isinstance(kind, str) and kind in _TYPES]
    if len(known) < len(kinds) or not known:
        walk.fault(path, value, is_malformed=True)
    if len(known) < len(kinds):
        return _GONE  # a type that is unknown may be any
    return list(dict.fromkeys(known)) or _GONE


def _enum(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, list) or not value:
        return walk.fault(path, value, is_malformed=True)
    return value


def _required(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        return walk.fault(path, value, is_malformed=True)
    return list(dict.fromkeys(value))


def _number(walk: _Walk, value: object, path: str, depth: int) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return walk.fault(path, value, is_malformed=True)
    return value


def _multiple(walk: _Walk, value: object, path: str, depth: int) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return walk.fault(path, value, is_malformed=True)
    if not PRECISE[0] <= value <= PRECISE[1]:
        return walk.fault(path, value, is_malformed=False)
    return value


def _count(walk: _Walk, value: object, path: str, depth: int) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return walk.fault(path, value, is_malformed=True)
    if value != int(value) if isfinite(value) else True:
        return walk.fault(path, value, is_malformed=True)
    if value > (MAX_LEAST if path.rpartition("/")[2].startswith("min") else MAX_MOST):
        return walk.fault(path, value, is_malformed=False)
    return int(value)


def _pattern(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, str):
        return walk.fault(path, value, is_malformed=True)
    near = nearest_pattern(value)
    if near != value:
        walk.fault(path, value, is_malformed=False)
    return _GONE if near is None else near


def _format(walk: _Walk, value: object, path: str, depth: int) -> object:
    if not isinstance(value, str):
        return walk.fault(path, value, is_malformed=True)
    return value if is_format(value) else walk.fault(path, value, is_malformed=False)


def _as_it_is(walk: _Walk, value: object, path: str, depth: int) -> object:
    return value


# All keywords that a grammar knows. Whatever is neither here nor in UNSUPPORTED is an annotation.
_RULES: dict[str, _Rule] = {
    "type": _type, "enum": _enum, "const": _as_it_is, "$ref": _Walk.reference,
    "properties": _by_name, "patternProperties": _by_pattern, "required": _required,
    "additionalProperties": _inner, "items": _inner, "prefixItems": _alternatives,
    "anyOf": _alternatives, "oneOf": _alternatives, "allOf": _alternatives,
    "minimum": _number, "maximum": _number, "exclusiveMinimum": _number,
    "exclusiveMaximum": _number, "multipleOf": _multiple,
    "minLength": _count, "maxLength": _count, "minItems": _count, "maxItems": _count,
    "minProperties": _count, "maxProperties": _count, "pattern": _pattern, "format": _format,
}  # fmt: skip
