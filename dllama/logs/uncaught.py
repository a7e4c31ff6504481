"""Exceptions that nobody has caught, as lines of the log instead of tracebacks beside it."""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType

log = logging.getLogger("dllama")


def log_uncaught() -> None:
    """Has this process log the exception that ends it, those that end its threads, and those that
    come where none can be raised (in `__del__`). Exit codes stay as they are. Those of asyncio's
    tasks are logged by asyncio."""
    sys.excepthook = _process_ends
    threading.excepthook = _thread_ends
    sys.unraisablehook = _is_ignored


def _process_ends(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    _tell(f"nobody has caught {_short(kind, error)}: this process ends", kind, error, trace)


def _thread_ends(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return  # as threading itself has it
    name = args.thread.name if args.thread is not None else "that is gone"
    what = f"nobody has caught {_short(args.exc_type, args.exc_value)}: the thread {name} ends"
    _tell(what, args.exc_type, args.exc_value, args.exc_traceback)


def _is_ignored(args: sys.UnraisableHookArgs) -> None:
    what = args.err_msg or "an exception was ignored in"
    told = f"{what} {args.object!r}: {_short(args.exc_type, args.exc_value)}"
    _tell(told, args.exc_type, args.exc_value, args.exc_traceback)


def _tell(
    message: str,
    kind: type[BaseException],
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    error = kind() if error is None else error
    log.error("%s", message, exc_info=(kind, error, trace))


def _short(kind: type[BaseException], error: BaseException | None) -> str:
    return f"{kind.__name__} ({error})" if str(error or "") else kind.__name__
