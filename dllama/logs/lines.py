"""Records of the log as lines, for people or as JSON: one line a record, but for tracebacks in the
lines for people.

A record may bring, as `extra`, a `request_id` of its own and `fields`, which JSON has as keys.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from dllama.logs.context import model_name, request_id

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")  # all but tabs


class TextLines(logging.Formatter):
    """Lines for people. A rank is named in each, a request where one is at work. What could begin
    another line, or steer a terminal, is escaped."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        rank = fields.get("rank")
        self._node = f" rank {rank}" if rank else ""
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        asked = _request_of(record)
        about = f"{record.name}{self._node}{f' [{asked}]' if asked else ''}"
        message = _CONTROL.sub(lambda found: repr(found[0])[1:-1], record.getMessage())
        time = self.formatTime(record, self.datefmt)
        line = f"{time} {record.levelname:<7} {about}: {message}"
        trace = _trace_of(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonLines(logging.Formatter):
    """A JSON object a record: time (UTC), level, logger and message; request_id, model and rank
    where they are known; what the record brings; and a traceback as `exception`. `fields` are those
    of this process."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__()
        self._fields = dict(fields)

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = {"request_id": _request_of(record), "model": model_name()}
        told |= self._fields | {name: value for name, value in about.items() if value}
        more = getattr(record, "fields", None)
        if isinstance(more, Mapping):
            told |= {name: value for name, value in more.items() if name not in told}
        trace = _trace_of(self, record)
        if trace:
            told["exception"] = trace
        return json.dumps(told, ensure_ascii=False, default=str)


def _request_of(record: logging.LogRecord) -> str:
    return str(getattr(record, "request_id", "") or request_id())


def _trace_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
