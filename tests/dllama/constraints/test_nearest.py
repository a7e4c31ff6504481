"""Schemas of every keyword of JSON Schema as grammars: never refused where nobody asked for
`strict`, always JSON, and never narrower than the keywords that a grammar knows."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dllama.constraints import grammars
from dllama.constraints.compile import byte_matcher
from dllama.constraints.grammars import (
    MAX_SOURCE_CHARS,
    check_part,
    nearest_object,
    nearest_part,
    whole_answer,
)
from dllama.constraints.nearest import nearest
from tests.api.serving import masks, tokenizer

JUNK = st.sampled_from([None, -1, 0, 2.5, 1e308, "x", [], {}, [None], True, False, [{}], {"a": 1}])
NAMES = st.sampled_from(["a", "b", "größe", "", "a b", "$ref", "x/y"])
TYPES = ["null", "boolean", "object", "array", "number", "string", "integer"]
PATTERNS = [
    "^a+$", "(?=a)b", "^(?!x).*$", "[", "\\d{3}", "(?<=a)b", "^(?=.*[A-Z])(?=.*[0-9]).{8,}$",
    "\\p{L}", "\\cA", "(a)\\1", "^.{0,70000}$",
]  # fmt: skip
FORMATS = [
    "date-time", "date", "time", "duration", "email", "idn-email", "hostname", "idn-hostname",
    "ipv4", "ipv6", "uri", "uri-reference", "iri", "iri-reference", "uuid", "uri-template",
    "json-pointer", "relative-json-pointer", "regex", "int32", "binary", "password", "nonsense",
]  # fmt: skip
COUNTS = st.sampled_from([0, 1, 2, 5.0, 7, 10**6, 10**12])
LIMITS = st.sampled_from([0, 1, -5, 2.5, 10, 1e300, -1e300, 10**30, 1e-300])
REFERENCES = st.sampled_from(
    ["#", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/nowhere", "#anchor", "http://e.org/x", "a"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["a", "", "é", 1.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=3,
)


def keywords(schemas: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """All keywords of draft 2020-12, and those of older drafts and of OpenAPI."""
    some, named = st.lists(schemas, max_size=3), st.dictionaries(NAMES, schemas, max_size=3)
    lists = ("allOf", "anyOf", "oneOf", "prefixItems")
    single = (
        "additionalProperties", "items", "not", "if", "then", "else", "contains", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties", "additionalItems", "contentSchema",
    )  # fmt: skip
    by_name = ("properties", "$defs", "definitions", "dependentSchemas", "dependencies")
    counts = (
        "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
        "minContains", "maxContains",
    )  # fmt: skip
    limits = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    notes = (
        "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
        "$comment", "$schema", "$id", "$anchor", "$dynamicAnchor", "$vocabulary", "x-guidance",
        "contentEncoding", "contentMediaType", "discriminator", "x-note",
    )  # fmt: skip
    return {
        "type": st.sampled_from([*TYPES, "strng", "any"]) | st.lists(st.sampled_from(TYPES)),
        "enum": st.lists(VALUES, max_size=3), "const": VALUES, "nullable": st.booleans(),
        "required": st.lists(NAMES, max_size=2), "uniqueItems": st.booleans(),
        "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES), max_size=2),
        "pattern": st.sampled_from(PATTERNS), "format": st.sampled_from(FORMATS),
        "patternProperties": st.dictionaries(st.sampled_from(PATTERNS), schemas, max_size=2),
        "$ref": REFERENCES, "$dynamicRef": REFERENCES,
        **dict.fromkeys(lists, some), **dict.fromkeys(single, schemas),
        **dict.fromkeys(by_name, named), **dict.fromkeys(counts, COUNTS),
        **dict.fromkeys(limits, LIMITS), **dict.fromkeys(notes, VALUES),
    }  # fmt: skip


@st.composite
def any_schema(draw: st.DrawFn, depth: int = 3) -> Any:
    """A schema of a few keywords, now and then with a value that the keyword may not have."""
    if depth == 0 or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([True, False, {}, {"type": "string"}, {"type": "integer"}]))
    known = keywords(any_schema(depth=depth - 1))
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True))
    return {n: draw(JUNK if draw(st.integers(0, 19)) == 0 else known[n]) for n in names}


def written(grammar: str, seed: int) -> str | None:
    """A text that the grammar allows: random tokens, and a short end; None if no end is found."""
    rng, matcher = random.Random(seed), masks().matcher(grammar)
    tokens: list[int] = []
    size = masks().n_tokens
    for _ in range(rng.randrange(30)):
        if matcher.is_stopped():
            break
        bits = matcher.compute_bitmask()
        allowed = [i for i in range(size) if bits[i // 8] >> (i % 8) & 1]
        allowed = [i for i in allowed if i not in masks().end_ids]
        if not allowed:
            break
        token = rng.choice(allowed)
        assert matcher.consume_token(token)
        tokens.append(token)
    end = [] if matcher.is_stopped() else masks().completions.find(matcher, 400)
    if end is None:
        return None
    return b"".join(tokenizer().token_bytes(i) for i in [*tokens, *end]).decode()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=any_schema(), seed=st.integers(0, 99))
def test_any_schema_is_a_tool_and_what_it_allows_is_an_object(schema: Any, seed: int) -> None:
    part = nearest_object(schema if isinstance(schema, dict) else {"items": schema})
    check_part(part, "parameters")
    text = written(whole_answer(part), seed)
    if text is not None:
        assert isinstance(json.loads(text), dict)


@st.composite
def plain(draw: st.DrawFn, depth: int = 2) -> tuple[Any, Any]:
    """A schema of plain keywords, and a value of it."""
    kind = draw(st.integers(0, 9 if depth else 6))
    if kind == 0:
        value = draw(st.integers(-50, 50))
        limits = {"minimum": value - draw(st.integers(0, 3)), "maximum": value + 5}
        return {"type": "integer", **(limits if draw(st.booleans()) else {})}, value
    if kind == 1:
        return {"type": "number", "exclusiveMinimum": -3}, draw(st.sampled_from([0, 1.5, -2.25]))
    if kind == 2:
        text = draw(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=6))
        more = {"minLength": draw(st.integers(0, len(text))), "maxLength": len(text) + 1}
        return {"type": ["string", "null"], **more}, text
    if kind == 3:
        choices = draw(st.lists(VALUES, min_size=1, max_size=3))
        return {"enum": choices}, draw(st.sampled_from(choices))
    if kind == 4:
        value = draw(VALUES)
        return {"const": value}, value
    if kind == 5:
        return {"type": draw(st.sampled_from(["boolean", ["boolean", "string"]]))}, True
    if kind == 6:
        return {"type": "string", "nullable": True}, None
    if kind == 7:
        schema, value = draw(plain(depth - 1))
        return {"type": "array", "items": schema, "minItems": 1, "uniqueItems": True}, [value]
    if kind == 8:
        (first, value), (second, _) = draw(plain(depth - 1)), draw(plain(depth - 1))
        return {"anyOf": draw(st.permutations([first, second]))}, value
    pairs = draw(st.dictionaries(st.sampled_from("abc"), plain(depth - 1), min_size=1, max_size=3))
    names = list(pairs)
    schema = {"type": "object", "properties": {n: pairs[n][0] for n in names}}
    needed = draw(st.lists(st.sampled_from(names), unique=True))
    told = [n for n in names if n in needed or draw(st.booleans())]
    return {**schema, "required": needed}, {n: pairs[n][1] for n in told}


def allows(schema: dict[str, Any], value: object) -> bool:
    matcher = byte_matcher(whole_answer(nearest_object(schema)))
    assert matcher is not None
    text = json.dumps(value, ensure_ascii=False).encode()
    return bool(matcher.consume_tokens(list(text))) and bool(matcher.is_accepting())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(pair=plain())
def test_what_is_valid_may_be_written(pair: tuple[Any, Any]) -> None:
    inner, value = pair
    schema = {"type": "object", "properties": {"x": inner}, "required": ["x"]}
    nullable = isinstance(inner, dict) and inner.get("nullable")
    assume(nullable or jsonschema.Draft202012Validator(schema).is_valid({"x": value}))
    assert allows(schema, {"x": value})


def of(inner: dict[str, Any], **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": inner}, "required": ["a"], **root}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (of({"anyOf": [{"not": {}}, {"type": "string"}]}), {"a": "x"}),
        (of({"type": "object", "propertyNames": {"pattern": "^x"}}), {"a": {"x": 1}}),
        (of({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}), {"a": [1, 2]}),
        (of({"type": "string", "pattern": "^(?=.*[0-9])[a-z0-9]+$"}), {"a": "a1"}),
        (of({"type": "string", "format": "uri-reference"}), {"a": "../x"}),
        (of({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 1}]}), {"a": "xx"}),
        (of({"$ref": "#/$defs/t"}, **{"$defs": {"t": {"type": "string"}}}), {"a": "x"}),
        (of({"$ref": "#/definitions/t"}, definitions={"t": {"const": None}}), {"a": None}),
        (of({"$ref": "#t"}, **{"$defs": {"q": {"$anchor": "t", "enum": [3]}}}), {"a": 3}),
        (of({"$ref": "https://example.com/x"}), {"a": [1]}),
        (of({"type": "strng"}), {"a": {}}),
        (of({"enum": []}), {"a": 5}),
        (of({"type": "string", "nullable": True}), {"a": None}),
        (of({"type": "integer", "minimum": -(10**40), "maximum": 10**40}), {"a": 7}),
        (of({"type": "string", "minLength": 5, "maxLength": 2}), {"a": "xyz"}),
        (of({"type": "integer", "minimum": 3, "exclusiveMinimum": True}), {"a": 4}),
        (of({"items": [{"type": "string"}], "additionalItems": False}), {"a": ["x"]}),
        (of({"type": "object", "patternProperties": {"(?=x)x": {}}, "additionalProperties": False}),
         {"a": {"x": 1}}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {
            "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}}}}},
         {"next": {"next": None}}),
        ({"anyOf": [{"type": "string"}, {"type": "object"}]}, {"q": 1}),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, {}),
    ],
)  # fmt: skip
def test_what_a_schema_loses_is_only_what_no_grammar_knows(
    schema: dict[str, Any], value: object
) -> None:
    assert allows(schema, value)


def test_what_is_kept_still_counts() -> None:
    schema = of({"type": "string", "pattern": "^(?=.*[0-9])[a-z0-9]+$"})
    assert not allows(schema, {"a": "A"})
    mixed = {**of({"type": "integer"}), "not": {"required": ["b"]}}
    assert not allows(mixed, {"a": "x"})
    lost = {"type": "object", "properties": {"a": {"type": "strng"}, "b": {"type": "integer"}}}
    assert not allows(lost, {"b": "x"})


def test_a_part_that_contradicts_itself_leaves_the_others_as_they_are() -> None:
    impossible = {"allOf": [{"type": "string"}, {"type": "integer"}]}
    schema = {
        "type": "object",
        "properties": {"bad": impossible, "good": {"type": "integer"}},
        "required": ["bad", "good"],
    }
    assert allows(schema, {"bad": "x", "good": 1})
    assert not allows(schema, {"bad": "x", "good": "y"})


@pytest.mark.parametrize(
    ("schema", "path", "is_malformed"),
    [
        (of({"not": {}}), "/properties/a/not", False),
        (of({"type": "string", "format": "iri"}), "/properties/a/format", False),
        (of({"type": "strng"}), "/properties/a/type", True),
        (of({"anyOf": [{}, {"uniqueItems": True}]}), "/properties/a/anyOf/1/uniqueItems", False),
        (of({"$ref": "#/x"}), "/properties/a/$ref", True),
        (of({"$ref": "http://e.org"}), "/properties/a/$ref", False),
        ({"properties": {"a/b": {"minLength": -1}}}, "/properties/a~1b/minLength", True),
    ],
)
def test_faults_are_named(schema: dict[str, Any], path: str, is_malformed: bool) -> None:
    [fault] = nearest(schema).faults
    assert (fault.path, fault.is_malformed) == (path, is_malformed)


def test_keywords_that_say_nothing_are_no_faults() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "t",
        "uniqueItems": False,
        "type": "object", "x-note": 1, "additionalProperties": False, "default": {},
    }  # fmt: skip
    assert nearest_part(schema)[1] == []


def test_schemas_that_are_too_large_are_not_kept() -> None:
    def kept() -> int:
        return grammars._nearest_object.cache_info().currsize

    nearest_object({"properties": {"a": {"enum": ["small", "enough"]}}})
    before = kept()
    large = nearest_object({"description": "x" * MAX_SOURCE_CHARS, "properties": {"a": {}}})
    assert large == nearest_object({}) and kept() <= before + 1
