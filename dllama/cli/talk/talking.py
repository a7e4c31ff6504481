"""A chat in the terminal, or with questions that are piped in."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dllama.cli.chat_client import ChatClient
from dllama.cli.talk.commands import COMMANDS, LEAVE, Ask, command
from dllama.cli.talk.line_editor import LineEditor
from dllama.cli.talk.page import Page
from dllama.cli.talk.quiet_keys import keys_unseen
from dllama.cli.talk.server_models import choose_model, has_choice
from dllama.cli.terminal.output import complain, note
from dllama.cli.terminal.text_input import next_line
from dllama.errors import DllamaError, RequestError

PROMPT = ">>> "


def talk(
    client: ChatClient,
    *,
    is_plain: bool = False,
    keeps_history: bool = False,
    on_failure: Callable[[], None] = lambda: None,
) -> int:
    """Reads lines and prints answers until the user leaves. Without a terminal, until input ends;
    the exit code then says whether all were answered. `on_failure` is called where an answer did
    not come, and may raise."""
    is_live = sys.stdin.isatty() and sys.stdout.isatty()
    editor = LineEditor([*COMMANDS, LEAVE[0]], keeps_history) if is_live else None
    if is_live:
        note("say something; /help lists the commands, Ctrl-D ends the chat")

    def ask(prompt: str) -> str:
        return editor.line(prompt) if editor else next_line(sys.stdin)

    if is_live:
        begin(client, ask)
    code = 0
    while True:
        try:
            text = (editor.text(PROMPT) if editor else next_line(sys.stdin)).strip()
        except KeyboardInterrupt:
            if not is_live:
                raise
            continue
        except EOFError:
            return code
        except RequestError as error:  # a line that is no text
            complain(str(error))
            code = 1
            continue
        if text in LEAVE:
            return code
        is_answered = True
        try:
            send = command(client, text, ask) if text.startswith("/") else text
        except (KeyboardInterrupt, EOFError):
            continue
        except DllamaError as error:
            complain(str(error))
            send, is_answered = None, False
        if send:
            with keys_unseen():
                is_answered = speak(client, send, Page(is_live, is_plain), is_live)
        if not is_answered:
            on_failure()
            code = code if is_live else 1


def begin(client: ChatClient, ask: Ask) -> None:
    """Has the user choose a model where the server has many, and none was named."""
    try:
        if "model" not in client.fields and has_choice(client.server):
            choose_model(client, "", ask)
    except (KeyboardInterrupt, EOFError):
        note("no model is chosen; /model shows them again")
    except DllamaError as error:
        complain(str(error))


def speak(client: ChatClient, text: str, page: Page, is_live: bool) -> bool:
    """Prints one answer as it comes; Ctrl-C ends it. Returns whether it came."""
    try:
        for piece in client.ask(text):
            page.add(piece)
        page.end("(the answer reached the limit of its tokens)" if client.is_cut_off else "")
    except KeyboardInterrupt:
        page.end("(stopped)")
        if not is_live:
            raise
    except DllamaError as error:
        page.end()
        complain(str(error))
        return False
    return True
