"""The messages between the server and an engine process as bytes: one msgpack map each, with the
kind under "type". Knows no sockets.

The tables below are the whole protocol. A reader takes a message only if it has exactly the
fields of its kind, each of its type and size; both ends are always of the same release.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import msgpack

from dllama.errors import ProtocolError
from dllama.requests import (
    Abort,
    EngineState,
    FinishReason,
    FromEngine,
    Output,
    SamplingParams,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    ToEngine,
    TokenProbs,
)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_MAX_TOKENS = 1 << 22  # of a prompt; no context is that long
_MAX_LIST = 1 << 20  # other lists and maps: no vocabulary is that large
_MAX_ID_CHARS = 256
_MAX_TEXT_CHARS = 1 << 20
_MAX_TOKEN = (1 << 31) - 1
_MAX_DEPTH = 8  # of the tree that stats are

Check = Callable[[Any, str], Any]  # (raw value, field) -> value, or ProtocolError
T = TypeVar("T")


def encode_message(message: ToEngine | FromEngine) -> bytes:
    """The bytes of a message. Raises ProtocolError where it is too long to be read again, or
    holds what msgpack cannot carry."""
    tag = _TAGS.get(type(message))
    if tag is None:
        raise ProtocolError(
            f"a {type(message).__name__} cannot be sent to or from an engine; "
            f"expected one of {', '.join(cls.__name__ for cls in _TAGS)}"
        )
    try:
        packed: bytes = msgpack.packb({"type": tag, **_to_map(message)}, default=_to_map)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a message {tag!r} cannot be packed: {error}") from None
    _check_size(packed)
    return packed


def decode_message(data: bytes) -> ToEngine | FromEngine:
    """The message that the bytes stand for. Raises ProtocolError for anything else."""
    _check_size(data)
    try:
        raw = msgpack.unpackb(
            data,
            strict_map_key=False,  # logit_bias has numbers for keys
            max_ext_len=0,
            max_array_len=_MAX_TOKENS,
            max_map_len=_MAX_LIST,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"an engine message is not msgpack: {error}") from None
    tag = raw.pop("type", None) if type(raw) is dict else None
    cls = _KINDS.get(tag) if type(tag) is str else None
    if cls is None:
        raise _unexpected("type", tag, f"one of {', '.join(_KINDS)}")
    message: ToEngine | FromEngine = _record(cls)(raw, str(tag))
    return message


def _check_size(data: bytes) -> None:
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(
            f"an engine message has {len(data)} bytes, and at most {MAX_MESSAGE_BYTES} are allowed"
        )


def _unexpected(field: str, value: object, wanted: str) -> ProtocolError:
    shown = repr(value)[:80] if isinstance(value, bool | int | float | str) else ""
    return ProtocolError(
        f"the field {field!r} of an engine message is a {type(value).__name__} {shown}, and "
        f"{wanted} is expected"
    )


def _text(max_chars: int) -> Check:
    def check(raw: Any, field: str) -> str:
        if type(raw) is not str or len(raw) > max_chars:
            raise _unexpected(field, raw, f"a text of at most {max_chars} characters")
        return raw

    return check


def _integer(raw: Any, field: str) -> int:
    if type(raw) is not int:
        raise _unexpected(field, raw, "an integer")
    return raw


def _number(raw: Any, field: str) -> float:
    if type(raw) is not float and type(raw) is not int:
        raise _unexpected(field, raw, "a number")
    return float(raw)


def _boolean(raw: Any, field: str) -> bool:
    if type(raw) is not bool:
        raise _unexpected(field, raw, "true or false")
    return raw


def _optional(inner: Check) -> Check:
    def check(raw: Any, field: str) -> Any:
        return None if raw is None else inner(raw, field)

    return check


def _tokens(max_len: int) -> Check:
    def check(raw: Any, field: str) -> list[int]:
        if type(raw) is not list or len(raw) > max_len:
            raise _unexpected(field, raw, f"a list of at most {max_len} tokens")
        if raw and (set(map(type, raw)) != {int} or min(raw) < 0 or max(raw) > _MAX_TOKEN):
            raise _unexpected(field, raw, f"a list of integers from 0 to {_MAX_TOKEN}")
        return raw

    return check


def _bias(raw: Any, field: str) -> dict[int, float]:
    if type(raw) is not dict:
        raise _unexpected(field, raw, "a map from tokens to numbers")
    _tokens(_MAX_LIST)(list(raw), field)
    return {token: _number(bias, field) for token, bias in raw.items()}


def _finish(raw: Any, field: str) -> FinishReason:
    reason = _REASONS.get(raw) if type(raw) is str else None
    if reason is None:
        raise _unexpected(field, raw, f"one of {', '.join(_REASONS)}")
    return reason


def _tree(raw: Any, field: str, depth: int = 0) -> Any:
    """What JSON can say: maps with texts for keys, lists, texts, numbers, booleans and null."""
    if raw is None or type(raw) in (bool, int, float):
        return raw
    if type(raw) is str and len(raw) <= _MAX_TEXT_CHARS:
        return raw
    if depth < _MAX_DEPTH:
        if type(raw) is list:
            return [_tree(value, field, depth + 1) for value in raw]
        if type(raw) is dict and all(type(key) is str for key in raw):
            return {key: _tree(value, field, depth + 1) for key, value in raw.items()}
    raise _unexpected(field, raw, f"plain values nested at most {_MAX_DEPTH} deep")


def _stats(raw: Any, field: str) -> dict[str, object]:
    if type(raw) is not dict:
        raise _unexpected(field, raw, "a map")
    stats: dict[str, object] = _tree(raw, field)
    return stats


def _record(cls: type[T]) -> Check:
    """Reads a map with exactly the fields of `cls`."""
    checks = _FIELDS[cls]

    def check(raw: Any, field: str) -> T:
        if type(raw) is not dict or raw.keys() != checks.keys():
            found = ", ".join(sorted(map(str, raw))) if type(raw) is dict else type(raw).__name__
            raise ProtocolError(
                f"an engine message's {field!r} holds {found[:500] or 'nothing'}, and exactly "
                f"{', '.join(checks)} are expected; server and engine must be of one release"
            )
        return cls(**{name: read(raw[name], name) for name, read in checks.items()})

    return check


def _list_of(inner: Check) -> Check:
    def check(raw: Any, field: str) -> list[Any]:
        if type(raw) is not list or len(raw) > _MAX_LIST:
            raise _unexpected(field, raw, f"a list of at most {_MAX_LIST} entries")
        return [inner(value, field) for value in raw]

    return check


def _names(raw: Any, field: str) -> tuple[str, ...]:
    return tuple(_list_of(_text(_MAX_ID_CHARS))(raw, field))


_REASONS: dict[str, FinishReason] = {reason.value: reason for reason in FinishReason}

_FIELDS: dict[type, dict[str, Check]] = {}
_FIELDS[SamplingParams] = {
    "temperature": _number,
    "top_k": _integer,
    "top_p": _number,
    "min_p": _number,
    "repeat_penalty": _number,
    "presence_penalty": _number,
    "frequency_penalty": _number,
    "repeat_last_n": _integer,
    "logit_bias": _bias,
    "seed": _integer,
    "dynatemp_range": _number,
    "dynatemp_exponent": _number,
    "typical_p": _number,
    "top_n_sigma": _number,
    "xtc_probability": _number,
    "xtc_threshold": _number,
    "dry_multiplier": _number,
    "dry_base": _number,
    "dry_allowed_length": _integer,
    "dry_penalty_last_n": _integer,
    "dry_breakers": _tokens(_MAX_LIST),
    "dry_phrases": _list_of(_tokens(_MAX_LIST)),
    "mirostat": _integer,
    "mirostat_tau": _number,
    "mirostat_eta": _number,
    "min_keep": _integer,
    "samplers": _names,
    "n_probs": _optional(_integer),
    "post_sampling_probs": _boolean,
}
_FIELDS[Submit] = {
    "id": _text(_MAX_ID_CHARS),
    "tokens": _tokens(_MAX_TOKENS),
    "sampling": _record(SamplingParams),
    "stop_ids": _tokens(_MAX_LIST),
    "max_tokens": _optional(_integer),
}
_FIELDS[Abort] = {"id": _text(_MAX_ID_CHARS)}
_FIELDS[StatsQuery] = {"id": _text(_MAX_ID_CHARS)}
_FIELDS[TokenProbs] = {
    "token": _integer,
    "value": _number,
    "top_ids": _tokens(_MAX_LIST),
    "top_values": _list_of(_number),
}
_FIELDS[Output] = {
    "id": _text(_MAX_ID_CHARS),
    "tokens": _tokens(_MAX_TOKENS),
    "finish": _optional(_finish),
    "error": _optional(_text(_MAX_TEXT_CHARS)),
    "n_prompt": _integer,
    "n_cached": _integer,
    "retry_after_s": _optional(_number),
    "probs": _optional(_list_of(_record(TokenProbs))),
}
_FIELDS[StepDone] = {"outputs": _list_of(_record(Output))}
_FIELDS[EngineState] = {
    "state": _text(_MAX_ID_CHARS),
    "progress": _number,
    "detail": _text(_MAX_TEXT_CHARS),
}
_FIELDS[StatsReply] = {"id": _text(_MAX_ID_CHARS), "stats": _stats}

_KINDS: dict[str, type] = {
    "submit": Submit,
    "abort": Abort,
    "stats_query": StatsQuery,
    "step_done": StepDone,
    "engine_state": EngineState,
    "stats_reply": StatsReply,
}
_TAGS: dict[type, str] = {cls: tag for tag, cls in _KINDS.items()}
_NAMES = {cls: tuple(checks) for cls, checks in _FIELDS.items()}
_GETTERS: dict[type, Callable[[Any], Any]] = {
    cls: attrgetter(*names) for cls, names in _NAMES.items()
}


def _to_map(record: Any) -> dict[str, Any]:
    """A dataclass of the tables as a map of its fields, one level deep."""
    names = _NAMES.get(type(record))
    if names is None:
        raise TypeError(f"a {type(record).__name__} is none of the types that are sent")
    values = _GETTERS[type(record)](record)
    return dict(zip(names, values if len(names) > 1 else (values,), strict=True))
