"""A chat in the terminal, or with questions that are piped in."""

from __future__ import annotations

import sys

from dllama.cli.chat_client import ChatClient
from dllama.cli.talk.commands import COMMANDS, LEAVE, command
from dllama.cli.talk.line_editor import LineEditor
from dllama.cli.talk.page import Page
from dllama.cli.talk.quiet_keys import keys_unseen
from dllama.cli.terminal.output import complain, note
from dllama.cli.terminal.text_input import next_line
from dllama.errors import DllamaError, RequestError

PROMPT = ">>> "


def talk(client: ChatClient, *, is_plain: bool = False, keeps_history: bool = False) -> int:
    """Reads lines and prints answers until the user leaves. Without a terminal, until input ends;
    the exit code then says whether all were answered."""
    is_live = sys.stdin.isatty() and sys.stdout.isatty()
    editor = LineEditor([*COMMANDS, LEAVE[0]], keeps_history) if is_live else None
    if is_live:
        note("say something; /help lists the commands, Ctrl-D ends the chat")

    def ask(prompt: str) -> str:
        return editor.line(prompt) if editor else next_line(sys.stdin)

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
        if not is_answered and not is_live:
            code = 1


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
