"""How a process logs: which records, and in which format. All processes log alike, to stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import TextIO

from dllama.logs.lines import JsonLines, TextLines
from dllama.logs.uncaught import log_uncaught

LEVELS = ("debug", "info", "warning", "error")


class LogFormat(StrEnum):
    TEXT = "text"  # for people
    JSON = "json"  # an object a line


@dataclass(frozen=True, slots=True)
class LogSettings:
    """`level` is one of LEVELS, the least that is told. Crosses to child processes as JSON."""

    level: str = "warning"
    format: str = LogFormat.TEXT  # as a message brings it


def set_up_logging(settings: LogSettings, **fields: object) -> None:
    """Sets up the log of this process. `fields` are told in each line: its model, its rank. Where
    lines are JSON, warnings and exceptions that nobody has caught are lines too."""
    is_json = settings.format == LogFormat.JSON
    handler = JsonHandler(sys.stderr) if is_json else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(fields) if is_json else TextLines(fields))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler])
    if is_json:
        logging.captureWarnings(True)
        log_uncaught()


class JsonHandler(logging.StreamHandler[TextIO]):
    """Writes lines of JSON, also where a record cannot be made one."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        told = "a line of the log of %s could not be written", (record.name,)
        failed = logging.LogRecord("dllama", logging.ERROR, "", 0, *told, sys.exc_info())
        with contextlib.suppress(Exception):  # the stream is gone, say
            self.stream.write(self.format(failed) + self.terminator)


def told_as_json(level: int, text: str) -> bool:
    """Tells the user something in the log, whatever its level, and returns True; returns False
    where the log is no JSON: it is to be printed then."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, JsonLines):
            handler.handle(logging.LogRecord("dllama", level, "", 0, text, (), None))
            return True
    return False


def is_json() -> bool:
    """Returns whether this process writes nothing to stderr but lines of JSON."""
    return any(isinstance(one.formatter, JsonLines) for one in logging.getLogger().handlers)
