"""The rules of calls that are written as Python's (pythonic.py): the function's arguments in the
order of its schema, each `name=value` with the value as JSON, which is Python too, and True and
False for flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.tools.lark_lines import LarkLines
from api.tools.tagged import properties_of
from api.tools.tagged_grammar import required_of, schemas_of, with_shared
from dllama.constraints.grammars import Part

BETWEEN = '", "'


def add_pythonic_calls(
    rules: LarkLines, opening: str, names: Sequence[str], arguments: Sequence[Part]
) -> list[dict[str, object]]:
    """Adds a rule `call_{i}` of each function, from its name to its last argument, and
    `bare_call`, which is any of them after `opening`: one text with it, because free text may begin
    with as much. Returns the grammars that the rules refer to. `arguments` are those of all
    arguments as JSON."""
    parts: list[dict[str, object]] = []
    bare: list[str] = []
    for i, name, schema in schemas_of(names, arguments):
        body, more = _arguments(rules, i, schema)
        rules.lines.append(f"call_{i}: {rules.literal(f'{name}(')} {body}".rstrip())
        bare.append(f"{rules.literal(f'{opening}{name}(')} {body}".rstrip())
        parts += more
    rules.lines.append(f"bare_call: {' | '.join(bare)}")
    return parts


def _arguments(
    rules: LarkLines, tool: int, schema: Mapping[str, object]
) -> tuple[str, list[dict[str, object]]]:
    """Returns what follows the bracket of a function, and the grammars that it refers to."""
    properties = properties_of(schema)
    if properties is None:
        any_value = f"args_{tool}_any"
        rules.lines.append(f'item_{tool}: /[A-Za-z_][A-Za-z0-9_]*/ "=" @{any_value}')
        return f"(item_{tool} ({BETWEEN} item_{tool})*)?", [
            Part("json_schema", with_shared({}, schema)).named(any_value)
        ]
    taken = {key: inner for key, inner in properties.items() if inner is not False}
    required = required_of(schema)
    parts: list[dict[str, object]] = []
    for j, (key, inner) in enumerate(taken.items()):
        value = f"args_{tool}_{j}"
        told = '"True" | "False" | ' if _is_flag(inner) else ""
        rules.lines.append(f"item_{tool}_{j}: {rules.literal(f'{key}=')} ({told}@{value})")
        parts.append(Part("json_schema", with_shared(inner, schema)).named(value))
    return _in_order(rules, tool, [key in required for key in taken]), parts


def _in_order(rules: LarkLines, tool: int, is_required: Sequence[bool]) -> str:
    """Adds the rules of arguments in their order, with commas between those that are there:
    `first_{tool}_{j}` are the arguments from the j-th on where none has come before, and
    `rest_{tool}_{j}` those after another one. Returns the rule of all."""
    n = len(is_required)

    def rule(name: str, j: int) -> str:
        return f"{name}_{tool}_{j}" if j < n else ""

    for j in reversed(range(n)):
        item, rest, first = f"item_{tool}_{j}", rule("rest", j + 1), rule("first", j + 1)
        after = f"{BETWEEN} {item}"
        begun = f"{item} {rest}".rstrip()
        if is_required[j]:
            lines = [f"{after} {rest}", begun]
        else:
            lines = [f"({after})? {rest}", f"{begun} | {first}" if first else f"({begun})?"]
        for name, line in zip(("rest", "first"), lines, strict=True):
            rules.lines.append(f"{name}_{tool}_{j}: {line.rstrip()}")
    return rule("first", 0)


def _is_flag(schema: object) -> bool:
    """True for a schema of any boolean."""
    return isinstance(schema, Mapping) and schema.get("type") == "boolean" and "enum" not in schema
