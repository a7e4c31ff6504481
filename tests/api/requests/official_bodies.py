"""Request bodies as the types of the official clients allow them, for hypothesis."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

import typing_extensions
from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]
MAX_DEPTH = 6
SCHEMAS: list[dict[str, object]] = [
    {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
     "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}},
    {"type": "object"},
    {},
]  # fmt: skip
# What the documentation of a field says and its type does not: ranges, names, forms of texts.
DOCUMENTED: dict[str, Strategy] = {
    "model": st.sampled_from(["gpt-4o", "claude-sonnet-5", "toy"]),
    "name": st.sampled_from(["f", "get_it", "a-b"]),
    "parameters": st.sampled_from(SCHEMAS), "schema": st.sampled_from(SCHEMAS),
    "input_schema": st.sampled_from(SCHEMAS),
    "arguments": st.sampled_from(["{}", '{"a": "x"}']),
    "max_tokens": st.integers(0, 4), "max_completion_tokens": st.integers(1, 4),
    "max_output_tokens": st.integers(1, 4), "n": st.integers(1, 2),
    "best_of": st.just(1), "logprobs": st.just(True), "top_logprobs": st.integers(0, 3),
    "previous_response_id": st.none(), "dimensions": st.none(),
    "prompt": st.sampled_from(["Once", ["a", "b"], [1, 2], [[1, 2], [3]]]),
    "temperature": st.sampled_from([0, 1, 0.5, 2, 2.0]), "top_p": st.sampled_from([0, 1, 0.5]),
    "logit_bias": st.dictionaries(
        st.integers(0, 200_000).map(str), st.integers(-100, 100), max_size=2
    ),
    "stop": st.sampled_from(["x", ["x"], ["x", "y"], "", [], [""]]),
    "seed": st.integers(-(2**63), 2**63 - 1),
}  # fmt: skip
TEXTS = st.sampled_from(["Hi", "x", "é", "tool", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)


def whole_or_float(value: int) -> Strategy:
    return st.sampled_from([value, float(value)]) if abs(value) < 2**53 else st.just(value)


@cache
def values_of(hint: Any, depth: int = 0) -> Strategy | None:
    """All values of a type; None where it has none without going deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        return None
    if typing_extensions.is_typeddict(hint):
        return objects_of(hint, depth)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing_extensions.Required, typing_extensions.NotRequired, typing.Annotated):
        return values_of(inner[0], depth)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin in (typing.Union, types.UnionType):
        options = [values_of(option, depth) for option in inner]
        found = [option for option in options if option is not None]
        return st.one_of(found) if found else None
    if origin is not None:
        return containers_of(origin, inner, depth)
    return PLAIN.get(hint)


PLAIN: dict[Any, Strategy] = {
    str: TEXTS,
    bool: st.booleans(),
    int: st.integers(0, 9).flatmap(whole_or_float),
    float: st.sampled_from([0, 1, 0.5, 1.0]),
    object: JSON,
    Any: JSON,
    type(None): st.none(),
}


def containers_of(origin: Any, inner: tuple[Any, ...], depth: int) -> Strategy | None:
    if issubclass(origin, collections.abc.Mapping):
        value = values_of(inner[1], depth + 1)
        return None if value is None else st.dictionaries(TEXTS, value, max_size=2)
    value = values_of(inner[0], depth + 1)
    return st.just([]) if value is None else st.lists(value, max_size=2)


def objects_of(params: Any, depth: int) -> Strategy | None:
    """Objects of a TypedDict; fields that are not required may be null, as clients send them."""
    needed: dict[str, Strategy] = {}
    optional: dict[str, Strategy] = {}
    hints = typing_extensions.get_type_hints(params, include_extras=True)
    for name, hint in hints.items():
        is_needed = typing.get_origin(hint) is typing_extensions.Required
        value = DOCUMENTED.get(name) if takes_documented(hint) else None
        value = values_of(hint, depth + 1) if value is None else numbers(value)
        if value is None:
            if is_needed:
                return None
        elif is_needed:
            needed[name] = value
        else:
            optional[name] = value | st.none()
    return st.fixed_dictionaries(needed).flatmap(lambda found: some(found, optional))


def numbers(value: Strategy) -> Strategy:
    def written(drawn: Any) -> Strategy:
        return whole_or_float(drawn) if type(drawn) is int else st.just(drawn)

    return value.flatmap(written)


def takes_documented(hint: Any) -> bool:
    """False for a constant, which is what it is."""
    while typing.get_origin(hint) in (typing_extensions.Required, typing_extensions.NotRequired):
        hint = typing.get_args(hint)[0]
    return typing.get_origin(hint) is not typing.Literal


def some(found: dict[str, Any], optional: dict[str, Strategy]) -> Strategy:
    """Objects with a few of the optional fields: with all, some field is always refused."""
    if not optional:
        return st.just(found)
    names = st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True)
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries({name: optional[name] for name in chosen}).map(
            lambda more: {**found, **more}
        )
    )


def bodies(params: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Strategy:
    """Bodies of a route, once `change` has given them what no type says."""
    found = objects_of(params, 0)
    assert found is not None
    return found.map(change)
