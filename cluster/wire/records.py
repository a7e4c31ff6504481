"""Records: a dataclass as a map of plain values and a list of arrays, and back again.

A `Record` is made of a class once, from its annotations (see dllama/limits.py); when a message
passes, only the functions that were made of them run. Knows no bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_origin, get_type_hints

import numpy as np

from cluster.wire.readers import Reader, array_reader, reader, unwrapped, with_article
from dllama import __version__
from dllama.errors import ProtocolError

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
        bare, limits = unwrapped(hint)
        where = f"the field {name!r} of {with_article(self.cls.__name__)}"
        read = f"read_{name}"
        if bare is np.ndarray:
            self.n_arrays += 1
            self._space[read] = array_reader(where, limits)
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
        self._space[read] = reader(hint, where, _nested)
        self._entries.append(f"{name!r}: m.{name}")
        self._values.append(f"{name}={_reading(hint, name)}")

    def _function(self, arguments: str, lines: list[str]) -> Any:
        body = "\n    ".join(lines)
        exec(f"def made({arguments}):\n    {body}", self._space)
        return self._space["made"]

    def _misfit(self, raw: object) -> ProtocolError:
        found = ", ".join(sorted(map(str, raw))) if isinstance(raw, dict) else type(raw).__name__
        return ProtocolError(
            f"{with_article(self.cls.__name__)} holds {found[:500] or 'nothing'}, and exactly "
            f"{', '.join(self.names) or 'nothing'} is expected by dllama {__version__}; install "
            "the same dllama on every node"
        )


def _nested(cls: Any) -> Reader:
    record = record_of(cls)
    if record.n_arrays:
        raise TypeError(f"{with_article(cls.__name__)} has arrays, and stands where none travel")
    build = record.build
    return lambda raw: build(raw, _NO_ARRAYS)


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
        raise TypeError(f"{with_article(type(value).__name__)} is none of the types that are sent")
    return record.to_map(value, [])


def _reading(hint: Any, name: str) -> str:
    """The source that reads a field of a map; without a call for most sound values."""
    if hint in (int, float, bool):
        return f"v if type(v := raw[{name!r}]) is {hint.__name__} else read_{name}(v)"
    if get_origin(hint) in (Union, UnionType):
        return f"None if (v := raw[{name!r}]) is None else read_{name}(v)"
    return f"read_{name}(raw[{name!r}])"
