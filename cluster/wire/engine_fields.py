"""The fields of every message between server and engine, and what each may hold.

A reader takes a record only if it has exactly the fields of its table, each of its type and size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dllama.errors import ProtocolError
from dllama.requests import (
    SAMPLING_NUMBERS,
    Abort,
    EngineState,
    FinishReason,
    Output,
    SamplingParams,
    SessionAction,
    SessionCall,
    SessionReply,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    TokenProbs,
)

MAX_TOKENS = 1 << 22  # of a prompt; no context is that long
MAX_LIST = 1 << 20  # other lists and maps: no vocabulary is that large
_MAX_ID_CHARS = 256
_MAX_TEXT_CHARS = 1 << 20
_MAX_TOKEN = (1 << 31) - 1
_MAX_DEPTH = 8  # of the tree that stats are

Check = Callable[[Any, str], Any]  # (raw value, field) -> value, or ProtocolError
T = TypeVar("T")


def unexpected(field: str, value: object, wanted: str) -> ProtocolError:
    shown = repr(value)[:80] if isinstance(value, bool | int | float | str) else ""
    return ProtocolError(
        f"the field {field!r} of an engine message is a {type(value).__name__} {shown}, and "
        f"{wanted} is expected"
    )


def _text(max_chars: int) -> Check:
    def check(raw: Any, field: str) -> str:
        if type(raw) is not str or len(raw) > max_chars:
            raise unexpected(field, raw, f"a text of at most {max_chars} characters")
        return raw

    return check


def _integer(raw: Any, field: str) -> int:
    if type(raw) is not int:
        raise unexpected(field, raw, "an integer")
    return raw


def _number(raw: Any, field: str) -> float:
    if type(raw) is not float and type(raw) is not int:
        raise unexpected(field, raw, "a number")
    return float(raw)


def _boolean(raw: Any, field: str) -> bool:
    if type(raw) is not bool:
        raise unexpected(field, raw, "true or false")
    return raw


def _optional(inner: Check) -> Check:
    def check(raw: Any, field: str) -> Any:
        return None if raw is None else inner(raw, field)

    return check


def _tokens(max_len: int) -> Check:
    def check(raw: Any, field: str) -> list[int]:
        if type(raw) is not list or len(raw) > max_len:
            raise unexpected(field, raw, f"a list of at most {max_len} tokens")
        if raw and (set(map(type, raw)) != {int} or min(raw) < 0 or max(raw) > _MAX_TOKEN):
            raise unexpected(field, raw, f"a list of integers from 0 to {_MAX_TOKEN}")
        return raw

    return check


def _bias(raw: Any, field: str) -> dict[int, float]:
    if type(raw) is not dict:
        raise unexpected(field, raw, "a map from tokens to numbers")
    _tokens(MAX_LIST)(list(raw), field)
    return {token: _number(bias, field) for token, bias in raw.items()}


def _finish(raw: Any, field: str) -> FinishReason:
    reason = _REASONS.get(raw) if type(raw) is str else None
    if reason is None:
        raise unexpected(field, raw, f"one of {', '.join(_REASONS)}")
    return reason


def _action(raw: Any, field: str) -> SessionAction:
    if type(raw) is not str or raw not in _ACTIONS:
        raise unexpected(field, raw, f"one of {', '.join(_ACTIONS)}")
    return SessionAction(raw)


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
    raise unexpected(field, raw, f"plain values nested at most {_MAX_DEPTH} deep")


def _stats(raw: Any, field: str) -> dict[str, object]:
    if type(raw) is not dict:
        raise unexpected(field, raw, "a map")
    stats: dict[str, object] = _tree(raw, field)
    return stats


def record(cls: type[T]) -> Check:
    """Reads a map with exactly the fields of `cls`."""
    checks = FIELDS[cls]

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
        if type(raw) is not list or len(raw) > MAX_LIST:
            raise unexpected(field, raw, f"a list of at most {MAX_LIST} entries")
        return [inner(value, field) for value in raw]

    return check


def _floats(raw: Any, field: str) -> bytes:
    if type(raw) is not bytes or len(raw) % 4 or len(raw) > 4 * MAX_LIST:
        raise unexpected(field, raw, "the bytes of 32-bit floats")
    return raw


def _names(raw: Any, field: str) -> tuple[str, ...]:
    return tuple(_list_of(_text(_MAX_ID_CHARS))(raw, field))


_REASONS: dict[str, FinishReason] = {reason.value: reason for reason in FinishReason}
_ACTIONS = [action.value for action in SessionAction]

FIELDS: dict[type, dict[str, Check]] = {}
FIELDS[SamplingParams] = {
    **{n.name: _integer if n.type is int else _number for n in SAMPLING_NUMBERS},
    "logit_bias": _bias,
    "seed": _integer,
    "dry_breakers": _tokens(MAX_LIST),
    "dry_phrases": _list_of(_tokens(MAX_LIST)),
    "samplers": _names,
    "n_probs": _optional(_integer),
    "post_sampling_probs": _boolean,
}
FIELDS[Submit] = {
    "id": _text(_MAX_ID_CHARS),
    "tokens": _tokens(MAX_TOKENS),
    "sampling": record(SamplingParams),
    "stop_ids": _tokens(MAX_LIST),
    "max_tokens": _optional(_integer),
    "pooling": _optional(_text(_MAX_ID_CHARS)),
    "wants_progress": _boolean,
    "cache_prompt": _boolean,
    "session_id": _optional(_text(_MAX_ID_CHARS)),
    "deadline_s": _optional(_number),
    "context_shift": _boolean,
    "n_keep": _integer,
    "grammar": _optional(_text(_MAX_TEXT_CHARS)),
    "draft_max": _optional(_integer),
    "draft_min": _integer,
    "draft_p_min": _number,
}
FIELDS[Abort] = {"id": _text(_MAX_ID_CHARS)}
FIELDS[StatsQuery] = {"id": _text(_MAX_ID_CHARS)}
FIELDS[SessionCall] = {
    "id": _text(_MAX_ID_CHARS),
    "action": _action,
    "session_id": _text(_MAX_ID_CHARS),
    "filename": _text(_MAX_ID_CHARS),
}
FIELDS[SessionReply] = {
    "id": _text(_MAX_ID_CHARS),
    "error": _optional(_text(_MAX_TEXT_CHARS)),
    "n_tokens": _integer,
    "n_bytes": _integer,
    "elapsed_ms": _number,
}
FIELDS[TokenProbs] = {
    "token": _integer,
    "value": _number,
    "top_ids": _tokens(MAX_LIST),
    "top_values": _list_of(_number),
}
FIELDS[Output] = {
    "id": _text(_MAX_ID_CHARS),
    "tokens": _tokens(MAX_TOKENS),
    "finish": _optional(_finish),
    "error": _optional(_text(_MAX_TEXT_CHARS)),
    "n_prompt": _integer,
    "n_cached": _integer,
    "retry_after_s": _optional(_number),
    "probs": _optional(_list_of(record(TokenProbs))),
    "n_computed": _integer,
    "embedding": _optional(_floats),
    "n_drafted": _integer,
    "n_accepted": _integer,
}
FIELDS[StepDone] = {"outputs": _list_of(record(Output))}
FIELDS[EngineState] = {
    "state": _text(_MAX_ID_CHARS),
    "progress": _number,
    "detail": _text(_MAX_TEXT_CHARS),
}
FIELDS[StatsReply] = {"id": _text(_MAX_ID_CHARS), "stats": _stats}

KINDS: dict[str, type] = {
    "submit": Submit,
    "abort": Abort,
    "stats_query": StatsQuery,
    "session_call": SessionCall,
    "session_reply": SessionReply,
    "step_done": StepDone,
    "engine_state": EngineState,
    "stats_reply": StatsReply,
}
