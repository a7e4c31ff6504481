"""The part of Go's templates that Ollama's `template` needs: fields, and conditions on them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dllama.errors import RequestError

_ACTION = re.compile(r"\{\{(-(?=\s))?\s*(.*?)\s*((?<=\s)-)?\}\}", re.DOTALL)
RESPONSE = "Response"  # what follows it is written after an answer, so that a prompt ends there


def render_go(source: str, values: Mapping[str, str], param: str) -> str:
    """Returns a template's text up to the answer. `values` are the fields that it may name. Raises
    RequestError, naming `param`, for actions that this server does not know."""
    written: list[str] = []
    branches: list[tuple[bool, bool]] = []  # of each open `if`: it is written now; it was once
    for text, action in _pieces(source):
        is_written = all(now for now, _ in branches)
        if is_written:
            written.append(text)
        if not action:
            continue
        word, _, rest = action.partition(" ")
        if word == "if" and rest.strip():
            is_true = bool(_value(rest.strip(), values, param))
            branches.append((is_true, is_true))
        elif action == "else" and branches:
            branches[-1] = (not branches[-1][1], True)
        elif action == "end" and branches:
            branches.pop()
        elif action == f".{RESPONSE}":
            if is_written:
                return "".join(written)
        else:
            value = _value(action, values, param)
            if is_written:
                written.append(value)
    if branches:
        raise RequestError(
            f"`{param}` has an {{{{ if }}}} without its {{{{ end }}}}; add it.", param=param
        )
    return "".join(written)


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    """Yields each text with the action after it, comments and the last one as ""; a dash in an
    action takes the white space beside it away."""
    at, is_trimmed = 0, False
    for match in _ACTION.finditer(source):
        text = source[at : match.start()]
        text = text.lstrip() if is_trimmed else text
        before, action, after = match.groups()
        yield text.rstrip() if before else text, "" if action.startswith("/*") else action
        at, is_trimmed = match.end(), bool(after)
    text = source[at:]
    yield text.lstrip() if is_trimmed else text, ""


def _value(action: str, values: Mapping[str, str], param: str) -> str:
    name = action.removeprefix(".")
    if not action.startswith(".") or name not in values:
        known = ", ".join(f".{name}" for name in (*values, RESPONSE))
        raise RequestError(
            f"`{param}` has {{{{ {action:.60} }}}}, which this server does not know; it knows "
            f"{known}, and if, else and end. Leave `{param}` out for the model's own template, or "
            "send the whole prompt with `raw`.",
            param=param,
        )
    return values[name]
