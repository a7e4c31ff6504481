"""Message fields as plain values, and back again with every type checked."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from cluster.wire.frames import PROTOCOL_VERSION
from dllama import __version__
from dllama.errors import ProtocolError


@cache
def field_types(kind: Any) -> dict[str, Any]:
    return {f.name: get_type_hints(kind)[f.name] for f in fields(kind)}


@cache
def array_fields(kind: Any) -> tuple[str, ...]:
    return tuple(name for name, hint in field_types(kind).items() if hint is np.ndarray)


def plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.value if isinstance(value, Enum) else value


def build(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` says, or a ProtocolError that names the place."""
    if is_dataclass(hint):
        return _build_dataclass(hint, value, where)
    if get_origin(hint) in (Union, types.UnionType):  # X | None is the only union in use
        inner = next(a for a in get_args(hint) if a is not type(None))
        return None if value is None else build(inner, value, where)
    if get_origin(hint) in (list, tuple):
        if not isinstance(value, list):
            raise ProtocolError(f"{where} is {value!r:.40}; expected a list")
        return get_origin(hint)(build(get_args(hint)[0], v, where) for v in value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        if value not in [member.value for member in hint]:
            raise ProtocolError(f"{where} is {value!r:.40}, which is no {hint.__name__}")
        return hint(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ProtocolError(f"{where} is {value!r:.40}; expected {hint.__name__}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    hints = field_types(kind)
    if not isinstance(value, dict) or set(value) != set(hints):
        got = sorted(map(str, value)) if isinstance(value, dict) else type(value).__name__
        raise ProtocolError(
            f"{where} has the fields {got}; cluster protocol {PROTOCOL_VERSION} of dllama "
            f"{__version__} has {sorted(hints)}. Install the same dllama on every node"
        )
    return kind(**{n: build(hint, value[n], f"{where}.{n}") for n, hint in hints.items()})
