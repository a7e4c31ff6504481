"""The fields of a dataclass as plain values, and back again with every type and limit checked.

A `Record` is made of a class once, from its annotations (see dllama/limits.py); when a message
passes, only the functions that were made of them run. Knows no bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from dllama import __version__
from dllama.errors import ProtocolError
from dllama.limits import (
    MAX_ENTRIES,
    MAX_TEXT_CHARS,
    MAX_TREE_DEPTH,
    Array,
    Local,
    MaxLength,
    MultipleOf,
    Range,
)

Reader = Callable[[Any], Any]
"""Makes a field's value of what msgpack or a frame brought, or raises ProtocolError."""
L = TypeVar("L")
_NO_ARRAYS: Iterator[np.ndarray] = iter(())


class Record:
    """How a dataclass travels: its fields by name, its arrays in their order, depth first.

    `to_map(message, arrays)` gives the fields as a map and adds the arrays to a list; records
    inside that have no arrays stay as they are, for `plain` to come back to.
    `build(raw, arrays)` makes the message of a map and an iterator over n_arrays arrays, or
    raises ProtocolError. Both are written out as source once, as dataclasses write __init__.
    """

    def __init__(self, cls: Any) -> None:
        self.cls = cls
        self.n_arrays = 0
        self.names: list[str] = []  # of the fields that are in the map
        self._space: dict[str, Any] = {"make": cls, "misfit": self._misfit}
        self._takes: list[str] = []  # source: statements that take a message's arrays
        self._entries: list[str] = []  # source: entries of its map
        self._values: list[str] = []  # source: arguments of the constructor
        hints = get_type_hints(cls, include_extras=True)
        for field in fields(cls):
            self._add(field.name, hints[field.name])
        self.to_map: Callable[[Any, list[np.ndarray]], dict[str, Any]] = self._function(
            "m, arrays", [*self._takes, f"return {{{', '.join(self._entries)}}}"]
        )
        self.build: Callable[[Any, Iterator[np.ndarray]], Any] = self._function(
            "raw, arrays",
            [
                f"if type(raw) is not dict or len(raw) != {len(self.names)}: raise misfit(raw)",
                f"try: return make({', '.join(self._values)})",
                "except KeyError: raise misfit(raw) from None",
            ],
        )

    def _add(self, name: str, hint: Any) -> None:
        bare, limits = _unwrapped(hint)
        where = f"the field {name!r} of {_a(self.cls.__name__)}"
        read = f"read_{name}"
        if _first(limits, Local) is not None:
            return
        if bare is np.ndarray:
            self.n_arrays += 1
            self._space[read] = _array(where, limits)
            self._takes.append(f"arrays.append(m.{name})")
            self._values.append(f"{name}={read}(next(arrays))")
            return
        self.names.append(name)
        if is_dataclass(bare) and (inner := record_of(bare)).n_arrays:
            self.n_arrays += inner.n_arrays
            self._space[read], self._space[f"map_{name}"] = inner.build, inner.to_map
            self._takes.append(f"{name} = map_{name}(m.{name}, arrays)")
            self._entries.append(f"{name!r}: {name}")
            self._values.append(f"{name}={read}(raw[{name!r}], arrays)")
            return
        self._space[read] = _reader(hint, where)
        self._entries.append(f"{name!r}: m.{name}")
        self._values.append(f"{name}={_reading(hint, name)}")

    def _function(self, arguments: str, lines: list[str]) -> Any:
        body = "\n    ".join(lines)
        exec(f"def made({arguments}):\n    {body}", self._space)
        return self._space["made"]

    def _misfit(self, raw: object) -> ProtocolError:
        found = ", ".join(sorted(map(str, raw))) if isinstance(raw, dict) else type(raw).__name__
        return ProtocolError(
            f"{_a(self.cls.__name__)} holds {found[:500] or 'nothing'}, and exactly "
            f"{', '.join(self.names) or 'nothing'} is expected by dllama {__version__}; install "
            "the same dllama on every node"
        )


_records: dict[type, Record] = {}


def record_of(cls: Any) -> Record:
    """The Record of a dataclass, made at the first call. Raises TypeError for a class with a
    field of a type that does not travel."""
    if cls not in _records:
        _records[cls] = Record(cls)
    return _records[cls]


def plain(value: Any) -> dict[str, Any]:
    """A record inside of a message as a map: what msgpack calls for a type it does not know."""
    record = _records.get(type(value))
    if record is None:
        raise TypeError(f"{_a(type(value).__name__)} is none of the types that are sent")
    return record.to_map(value, [])


def unexpected(where: str, value: object, wanted: str) -> ProtocolError:
    """The error of a field that holds something else."""
    shown = f" {value!r:.80}" if isinstance(value, bool | int | float | str) else ""
    return ProtocolError(f"{where} is {_a(type(value).__name__)}{shown}, and {wanted} is expected")


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "AEIOUaeiou" else f"a {noun}"


def _unwrapped(hint: Any) -> tuple[Any, tuple[object, ...]]:
    """A type and the limits that are annotated to it."""
    if get_origin(hint) is not Annotated:
        return hint, ()
    bare, *limits = get_args(hint)
    return bare, tuple(limits)


def _first(limits: Iterable[object], kind: type[L]) -> L | None:
    return next((limit for limit in limits if isinstance(limit, kind)), None)


def _max_length(limits: Iterable[object], default: int) -> int:
    limit = _first(limits, MaxLength)
    return default if limit is None else limit.n


def _reading(hint: Any, name: str) -> str:
    """The source that reads a field of a map; without a call for most sound values."""
    if hint in (int, float, bool):
        return f"v if type(v := raw[{name!r}]) is {hint.__name__} else read_{name}(v)"
    if get_origin(hint) in (Union, UnionType):
        return f"None if (v := raw[{name!r}]) is None else read_{name}(v)"
    return f"read_{name}(raw[{name!r}])"


# ---- readers by type
def _reader(hint: Any, where: str) -> Reader:
    """The reader of a type. Raises TypeError for one that does not travel."""
    bare, limits = _unwrapped(hint)
    origin, args = get_origin(bare), get_args(bare)
    if origin in (Union, UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))  # X | None, no other union
        return _optional(_reader(inner, where))
    if origin in (list, tuple):
        return _sequence(origin, args[0], where, limits)
    if origin is dict:
        return _map(args[0], args[1], where, limits)
    if bare in _SCALARS:
        return _SCALARS[bare](where, limits)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return _member(bare, where)
    if is_dataclass(bare):
        if record_of(bare).n_arrays:
            raise TypeError(f"{where} holds arrays where none can travel")
        build = record_of(bare).build
        return lambda raw: build(raw, _NO_ARRAYS)
    raise TypeError(f"{where} has the type {hint}, which does not travel")


def _integer(where: str, limits: tuple[object, ...]) -> Reader:
    limit = _first(limits, Range)

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
    n, unit = _max_length(limits, MAX_TEXT_CHARS), _first(limits, MultipleOf) or MultipleOf(1)

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


def _sequence(origin: Any, entry: Any, where: str, limits: tuple[object, ...]) -> Reader:
    n = _max_length(limits, MAX_ENTRIES)
    read_entry = _reader(entry, where)
    bare, entry_limits = _unwrapped(entry)
    limit = _first(entry_limits, Range)
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


def _map(key: Any, value: Any, where: str, limits: tuple[object, ...]) -> Reader:
    n = _max_length(limits, MAX_ENTRIES)
    read_key, read_value = _reader(key, where), _reader(value, where)

    def read(raw: Any) -> Any:
        if type(raw) is not dict or len(raw) > n:
            raise unexpected(where, raw, f"a map of at most {n} entries")
        return {read_key(name): read_value(entry) for name, entry in raw.items()}

    return read


def _array(where: str, limits: tuple[object, ...]) -> Reader:
    limit = _first(limits, Array)
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
