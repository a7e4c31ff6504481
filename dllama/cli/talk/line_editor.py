"""What people type into a chat: lines, texts of several lines, with a history and completion."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from cluster.security.home import home_folder
from dllama.errors import ConfigError

QUOTES = '"""'
HISTORY = "chat_history"


class LineEditor:
    """Reads from the terminal. Enter sends, Alt-Enter begins a new line, and so does Enter between
    triple quotes."""

    def __init__(self, commands: Sequence[str], keeps_history: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(keeps_history), multiline=True, key_bindings=_bindings(),
            completer=WordCompleter(list(commands), sentence=True), complete_while_typing=False,
            prompt_continuation="... ",
        )  # fmt: skip
        self._plain: PromptSession[str] = PromptSession(history=InMemoryHistory())

    def text(self, prompt: str) -> str:
        """Returns the next text. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C."""
        typed = self._session.prompt(prompt).strip()
        if is_closed(typed):
            return typed[len(QUOTES) : -len(QUOTES)].strip("\n")
        return typed

    def line(self, prompt: str) -> str:
        """Returns the answer to a question; it is not kept in the history."""
        return self._plain.prompt(prompt)


def is_closed(text: str) -> bool:
    """Whether a text stands between triple quotes."""
    return len(text) >= 2 * len(QUOTES) and text.startswith(QUOTES) and text.endswith(QUOTES)


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = buffer.text.strip()
        if text.startswith(QUOTES) and not is_closed(text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(keeps: bool) -> History:
    if not keeps:
        return InMemoryHistory()
    try:
        path = home_folder() / HISTORY
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except (OSError, ConfigError):
        return InMemoryHistory()
    return FileHistory(str(path))
