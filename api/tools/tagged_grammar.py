"""The rules of calls whose arguments stand between tags (tagged.py): the function's arguments in
the order of its schema, each value as its schema says. A text is any; its length and its pattern
are not held."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from api.tools.lark_lines import LarkLines
from api.tools.tagged import (
    KEY,
    KEY_END,
    VALUE,
    VALUE_END,
    ValueKind,
    kind_of,
    properties_of,
    texts_of,
)
from dllama.constraints.grammars import Part

_SHARED = ("$defs", "definitions", "x-guidance")  # what the schema of an argument may refer to


def add_tagged_calls(
    rules: LarkLines, names: Sequence[str], arguments: Sequence[Part]
) -> list[dict[str, object]]:
    """Adds a rule `call_{i}` of each function, from its name to its last argument; returns the
    grammars that the rules refer to. `arguments` are those of all arguments as JSON."""
    literal = rules.literal
    rules.up_to("key_end", KEY_END)
    rules.up_to("value_end", VALUE_END)
    rules.lines.append(r"line: /\n?/")
    rules.lines.append(f"any_argument: {literal(KEY)} key_end line {literal(VALUE)} value_end line")
    parts: list[dict[str, object]] = []
    for i, name, schema in schemas_of(names, arguments):
        body, more = _arguments(rules, i, schema)
        rules.lines.append(f"call_{i}: {literal(name)} line {body}".rstrip())
        parts += more
    return parts


def _arguments(
    rules: LarkLines, tool: int, schema: Mapping[str, object]
) -> tuple[str, list[dict[str, object]]]:
    """Returns what follows the name of a function, and the grammars that it refers to."""
    properties = properties_of(schema)
    if properties is None:
        return "any_argument*", []
    required = required_of(schema)
    items, parts = [], []
    for j, (key, inner) in enumerate(properties.items()):
        name = f"args_{tool}_{j}"
        value = f"@{name} {rules.literal(VALUE_END)}"
        if isinstance(inner, Mapping) and kind_of(inner) is ValueKind.JSON:
            parts.append(Part("json_schema", with_shared(inner, schema)).named(name))
        else:
            value = _text(rules, inner)
        head = f"{rules.literal(KEY)} {rules.literal(key)} {rules.literal(KEY_END)}"
        item = f"{head} line {rules.literal(VALUE)} {value} line"
        items.append(item if key in required else f"({item})?")
    return " ".join(items), parts


def schemas_of(
    names: Sequence[str], arguments: Sequence[Part]
) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """Yields the number of each function, its name, and the schema of its arguments."""
    for i, (name, part) in enumerate(zip(names, arguments, strict=True)):
        assert isinstance(part.value, Mapping), "the arguments of functions are held by schemas"
        yield i, name, part.value


def required_of(schema: Mapping[str, object]) -> set[object]:
    """Returns the names of the arguments that a function cannot do without."""
    said = schema.get("required")
    return set(said) if isinstance(said, list) else set()


def with_shared(inner: object, schema: Mapping[str, object]) -> dict[str, object]:
    """Returns the schema of one argument with the definitions that it may refer to."""
    shared = {key: schema[key] for key in _SHARED if key in schema}
    return {**inner, **shared} if isinstance(inner, Mapping) else shared


def _text(rules: LarkLines, schema: object) -> str:
    """Returns a value that is a text, with the tag after it."""
    texts = texts_of(schema)
    if texts is None:
        return "value_end"
    return f"({' | '.join(rules.literal(text) for text in texts)}) {rules.literal(VALUE_END)}"
