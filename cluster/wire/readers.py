"""Readers of plain values: one function for each annotated type, which checks type and limits.

Readers are made once, when a class is first seen (see cluster/wire/records.py). Knows no bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import numpy as np

from dllama.array_limits import Array
from dllama.errors import ProtocolError
from dllama.limits import MAX_ENTRIES, MAX_TEXT_CHARS, MAX_TREE_DEPTH, MaxLength, MultipleOf, Range

Reader = Callable[[Any], Any]
"""Makes a field's value of what msgpack or a frame brought, or raises ProtocolError."""
L = TypeVar("L")


def unexpected(where: str, value: object, wanted: str) -> ProtocolError:
    """The error of a field that holds something else."""
    shown = f" {value!r:.80}" if isinstance(value, bool | int | float | str) else ""
    return ProtocolError(
        f"{where} is {with_article(type(value).__name__)}{shown}, and {wanted} is expected"
    )


def with_article(noun: str) -> str:
    """The noun behind "a" or "an"."""
    return f"an {noun}" if noun[0] in "AEIOUaeiou" else f"a {noun}"


def unwrapped(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """A type and the limits that are annotated to it."""
    if get_origin(hint) is not Annotated:
        return hint, ()
    bare, *limits = get_args(hint)
    return bare, tuple(limits)


def first(limits: Iterable[object], kind: type[L]) -> L | None:
    """The limit of a kind, None where there is none."""
    return next((limit for limit in limits if isinstance(limit, kind)), None)


def _max_length(limits: Iterable[object], default: int) -> int:
    limit = first(limits, MaxLength)
    return default if limit is None else limit.n


def reader(hint: Any, where: str, nested: Callable[[Any], Reader]) -> Reader:
    """The reader of an annotated type; `where` names the field in errors, `nested` makes the
    reader of a dataclass inside. Raises TypeError for a type that does not travel."""
    bare, limits = unwrapped(hint)
    origin, args = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))  # X | None, no other union
        return _optional(reader(inner, where, nested))
    if origin in (list, tuple):
        entries = reader(args[0], where, nested)
        return _sequence(origin, args[0], entries, where, limits)
    if origin is dict:
        key, value = (reader(arg, where, nested) for arg in args)
        return _map(key, value, where, limits)
    if bare in _SCALARS:
        return _SCALARS[bare](where, limits)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return _member(bare, where)
    if is_dataclass(bare):
        return nested(bare)
    raise TypeError(f"{where} has the type {hint}, which does not travel")


def _integer(where: str, limits: tuple[object, ...]) -> Reader:
    limit = first(limits, Range)

    def read(raw: Any) -> Any:
        if type(raw) is not int:
            raise unexpected(where, raw, "an integer")
        return raw

    def read_limited(raw: Any) -> Any:
        assert limit is not None
        if type(raw) is not int or not limit.low <= raw <= limit.high:
            raise unexpected(where, raw, f"an integer from {limit.low} to {limit.high}")
        return raw

    return read if limit is None else read_limited


def _number(where: str, limits: tuple[object, ...]) -> Reader:
    def read(raw: Any) -> Any:
        if type(raw) is float:
            return raw
        if type(raw) is not int:
            raise unexpected(where, raw, "a number")
        return float(raw)

    return read


def _boolean(where: str, limits: tuple[object, ...]) -> Reader:
    def read(raw: Any) -> Any:
        if type(raw) is not bool:
            raise unexpected(where, raw, "true or false")
        return raw

    return read


def _text(where: str, limits: tuple[object, ...]) -> Reader:
    n = _max_length(limits, MAX_TEXT_CHARS)

    def read(raw: Any) -> Any:
        if type(raw) is not str or len(raw) > n:
            raise unexpected(where, raw, f"a text of at most {n} characters")
        return raw

    return read


def _bytes(where: str, limits: tuple[object, ...]) -> Reader:
    n, unit = _max_length(limits, MAX_TEXT_CHARS), first(limits, MultipleOf) or MultipleOf(1)

    def read(raw: Any) -> Any:
        if type(raw) is not bytes or len(raw) > n or len(raw) % unit.n:
            raise unexpected(where, raw, f"at most {n} bytes, a multiple of {unit.n},")
        return raw

    return read


def _tree(where: str, limits: tuple[object, ...]) -> Reader:
    """Reads what JSON can say: maps with texts for keys, lists, texts, numbers, booleans, null."""

    def read(raw: Any, depth: int = 1) -> Any:
        if raw is None or type(raw) in (bool, int, float):
            return raw
        if type(raw) is str and len(raw) <= MAX_TEXT_CHARS:
            return raw
        if depth < MAX_TREE_DEPTH:
            if type(raw) is list:
                return [read(value, depth + 1) for value in raw]
            if type(raw) is dict and all(type(key) is str for key in raw):
                return {key: read(value, depth + 1) for key, value in raw.items()}
        wanted = f"a tree of plain values nested at most {MAX_TREE_DEPTH} deep"
        raise unexpected(where, raw, wanted)

    return read


_SCALARS: dict[Any, Callable[[str, tuple[object, ...]], Reader]] = {
    int: _integer,
    float: _number,
    bool: _boolean,
    str: _text,
    bytes: _bytes,
    object: _tree,
}


def _optional(inner: Reader) -> Reader:
    return lambda raw: None if raw is None else inner(raw)


def _member(kind: type[Enum], where: str) -> Reader:
    members = {member.value: member for member in kind}
    listed = ", ".join(map(str, members))

    def read(raw: Any) -> Any:
        member = members.get(raw) if type(raw) in (int, str) else None
        if member is None:
            raise unexpected(where, raw, f"one of {listed}")
        return member

    return read


def _sequence(
    origin: Any, entry: Any, read_entry: Reader, where: str, limits: tuple[object, ...]
) -> Reader:
    n = _max_length(limits, MAX_ENTRIES)
    bare, entry_limits = unwrapped(entry)
    limit = first(entry_limits, Range)
    kind = bare if bare is float or (bare is int and limit is not None) else None

    def read(raw: Any) -> Any:
        if type(raw) is not list or len(raw) > n:
            raise unexpected(where, raw, f"a list of at most {n} entries")
        if kind is not None and raw and set(map(type, raw)) == {kind}:  # all entries at once
            if limit is not None and not (min(raw) >= limit.low and max(raw) <= limit.high):
                wanted = f"a list of integers from {limit.low} to {limit.high}"
                raise unexpected(where, raw, wanted)
            return raw if origin is list else origin(raw)
        return origin(map(read_entry, raw))

    return read


def _map(read_key: Reader, read_value: Reader, where: str, limits: tuple[object, ...]) -> Reader:
    n = _max_length(limits, MAX_ENTRIES)

    def read(raw: Any) -> Any:
        if type(raw) is not dict or len(raw) > n:
            raise unexpected(where, raw, f"a map of at most {n} entries")
        return {read_key(name): read_value(entry) for name, entry in raw.items()}

    return read


def array_reader(where: str, limits: tuple[object, ...]) -> Reader:
    """The reader of an array that came as a frame. Raises TypeError without an Array limit."""
    limit = first(limits, Array)
    if limit is None:
        raise TypeError(f"{where} is an array without an Array limit")
    dtype, ndim, max_len = np.dtype(limit.dtype), limit.ndim, limit.max_len
    wanted = f"an array of {dtype} with {ndim} dimensions and at most {max_len} rows is expected"

    def read(array: Any) -> Any:
        if array.dtype != dtype or array.ndim != ndim or len(array) > max_len:
            found = f"an array of {array.dtype} and shape {array.shape}"
            raise ProtocolError(f"{where} is {found}, and {wanted}")
        return array

    return read
