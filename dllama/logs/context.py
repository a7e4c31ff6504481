"""What a line of the log is about beside its message: the request that is being answered, and its
model. Each task has its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_ID_CHARS = 128
_SANE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{{0,{MAX_ID_CHARS - 1}}}")

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_model: ContextVar[str] = ContextVar("model", default="")


def request_id() -> str:
    """Returns the id of the request that this task answers, "" where it answers none."""
    return _request_id.get()


def model_name() -> str:
    """Returns the model that this task is about, "" where it is about none."""
    return _model.get()


def about_model(name: str) -> None:
    """Has the lines of this task name a model from now on."""
    _model.set(name)


@contextmanager
def about_request(request: str) -> Iterator[None]:
    """Has the lines of this task name a request meanwhile, and no model at first."""
    request_before, model_before = _request_id.set(request), _model.set("")
    try:
        yield
    finally:
        _model.reset(model_before)
        _request_id.reset(request_before)


def is_sane_id(text: str) -> bool:
    """Returns whether a text that a client sent may stand in headers and logs as it is."""
    return _SANE.fullmatch(text) is not None


def new_request_id() -> str:
    return f"req_{os.urandom(16).hex()}"
