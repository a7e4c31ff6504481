"""What is taken for a grammar, and what is refused before anything is queued."""

from __future__ import annotations

import pytest

from dllama.constraints.grammars import (
    WHITESPACE,
    GrammarKind,
    check_part,
    json_part,
    source_part,
)
from dllama.errors import RequestError

TAKEN = [
    (GrammarKind.JSON_SCHEMA, {}),
    (GrammarKind.JSON_SCHEMA, True),
    (GrammarKind.JSON_SCHEMA, {"type": "object", "properties": {"a": {"type": "string"}}}),
    (GrammarKind.REGEX, r'[0-9]+/x"\n'),
    (GrammarKind.LARK, 'start: "a" start | "b"'),
    (GrammarKind.GBNF, 'root ::= "a" | root "b" # left recursion'),
]
REFUSED = [
    (GrammarKind.JSON_SCHEMA, {"type": "strng"}),
    (GrammarKind.JSON_SCHEMA, False),
    (GrammarKind.JSON_SCHEMA, {"not": {"type": "string"}}),
    (GrammarKind.JSON_SCHEMA, {"$ref": "#/nowhere"}),
    (GrammarKind.JSON_SCHEMA, {"$ref": "http://example.com/schema"}),
    (GrammarKind.JSON_SCHEMA, {"type": "string", "minLength": 5, "maxLength": 2}),
    (GrammarKind.JSON_SCHEMA, {"type": "string", "pattern": "(?=a)b"}),
    (GrammarKind.JSON_SCHEMA, {"enum": ["x" * 1000] * 300}),
    (GrammarKind.REGEX, "a("),
    (GrammarKind.LARK, "nonsense"),
    (GrammarKind.LARK, "start: start"),
    (GrammarKind.GBNF, "root := x"),
    (GrammarKind.GBNF, 'other ::= "a"'),
    (GrammarKind.GBNF, "root ::= missing"),
    (GrammarKind.GBNF, "root ::= " + "(" * 5000),
]


@pytest.mark.parametrize(("kind", "source"), TAKEN)
def test_grammars_that_are_taken(kind: GrammarKind, source: object) -> None:
    check_part(source_part(kind, source), "grammar")


@pytest.mark.parametrize(("kind", "source"), REFUSED)
def test_grammars_that_are_refused(kind: GrammarKind, source: object) -> None:
    with pytest.raises(RequestError) as refused:
        check_part(source_part(kind, source), "grammar")
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 700


def test_an_object_that_names_its_properties_has_no_others() -> None:
    inner = {"type": "object", "properties": {"b": {}}}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": inner}}}
    closed = json_part(schema).value
    assert closed["additionalProperties"] is False  # type: ignore[index]
    assert closed["properties"]["a"]["items"]["additionalProperties"] is False  # type: ignore[index]
    assert "additionalProperties" not in schema


@pytest.mark.parametrize(
    "more",
    [
        {"additionalProperties": {"type": "string"}},
        {"patternProperties": {"^x": {}}},
        {"allOf": [{"properties": {"b": {}}}]},
        {"anyOf": [{"required": ["b"]}, {"required": ["c"]}]},
        {"required": ["b"]},
    ],
)
def test_an_object_that_may_have_more_stays_open(more: dict[str, object]) -> None:
    schema = {"type": "object", "properties": {"a": {}}, **more}
    kept = json_part(schema).value
    assert isinstance(kept, dict)
    assert kept.get("additionalProperties", "open") == more.get("additionalProperties", "open")


def test_objects_described_in_several_places_stay_open() -> None:
    inner = {"type": "object", "properties": {"b": {}}}
    schema = {"$defs": {"x": inner}, "$ref": "#/$defs/x", "properties": {"a": {}}}
    assert json_part(schema).value == schema | {"x-guidance": {"whitespace_pattern": WHITESPACE}}


def bounded(schema: dict[str, object]) -> dict[str, object]:
    """A schema as it is given to the grammar, without what all of them have."""
    found = json_part(schema).value
    assert isinstance(found, dict)
    return {key: value for key, value in found.items() if key != "x-guidance"}


def test_texts_and_numbers_get_limits_where_they_have_none() -> None:
    date = bounded({"type": "string", "format": "date"})
    assert "format" not in date and str(date["pattern"]).startswith("^")
    for limits in ({"maxLength": 12}, {"minLength": 3}, {"pattern": "^2"}):
        schema = {"type": "string", "format": "date", **limits}
        assert bounded(schema) == schema
    assert bounded({"type": "integer"}) == {
        "type": "integer", "minimum": -(10**15), "maximum": 10**15,
    }  # fmt: skip
    assert bounded({"type": "number", "minimum": 0}).keys() == {
        "type", "minimum", "maximum", "multipleOf",
    }  # fmt: skip
    huge = {"type": "integer", "minimum": 10**18}
    assert bounded(huge) == huge


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (GrammarKind.GBNF, 'root ::= root "a"'),
        (GrammarKind.GBNF, "root ::= a\na ::= b\nb ::= a"),
        (GrammarKind.JSON_SCHEMA, {"$ref": "#"}),
    ],
)
def test_a_rule_that_leads_to_itself_is_told_in_words(kind: GrammarKind, source: object) -> None:
    with pytest.raises(RequestError, match="no text satisfies it, as a rule leads to itself"):
        check_part(source_part(kind, source), "grammar")
