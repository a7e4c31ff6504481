"""dllama chat: talk to a running server in the terminal."""

from __future__ import annotations

import argparse
import shutil
import sys

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory
from rich.console import Console
from rich.text import Text

from dllama.cli.chat_client import ChatClient, Piece
from dllama.cli.flags.arguments import HelpFormatter
from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.cli.server_address import add_server_flags, key_of
from dllama.cli.terminal.output import complain, count_of, note
from dllama.cli.terminal.text_input import next_line, typed_text
from dllama.cli.terminal.word_wrap import WordWrap
from dllama.errors import DllamaError, RequestError

COMMANDS = {
    "/help": "this list",
    "/clear": "begins a new conversation",
    "/undo": "takes the last exchange back",
    "/exit": "ends the chat; so does Ctrl-D",
}
HELP = "\n".join(f"  {name:8} {what}" for name, what in COMMANDS.items())
LEAVE = ("/exit", "/bye", "/quit")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "chat", help=summary, description="Talk to a running server.",
        epilog="in the chat:\n" + HELP + "\n  Ctrl-C   ends an answer",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_server_flags(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="end answers after N tokens")
    add_sampling_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    fields = given_fields(args)
    if args.max_tokens is not None:
        fields["max_tokens"] = args.max_tokens
    client = ChatClient(args.url, key_of(args), fields)
    if args.system:
        client.messages.append({"role": "system", "content": typed_text(args.system, "--system")})
    return talk(client)


def talk(client: ChatClient) -> int:
    """Reads lines and prints answers until the user leaves. Without a terminal, until input ends;
    the exit code then says whether all were answered."""
    is_live = sys.stdin.isatty() and sys.stdout.isatty()
    session: PromptSession[str] | None = None
    if is_live:
        session = PromptSession(history=InMemoryHistory())
        note("say something; /help lists the commands, Ctrl-D ends the chat")
    code = 0
    while True:
        try:
            text = (session.prompt(">>> ") if session else next_line(sys.stdin)).strip()
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
        if text.startswith("/"):
            command(client, text)
        elif text and not speak(client, text, is_live) and not is_live:
            code = 1


def command(client: ChatClient, text: str) -> None:
    """Carries out a line that begins with a slash."""
    first = 1 if client.messages[:1] and client.messages[0]["role"] == "system" else 0
    if text == "/clear":
        del client.messages[first:]
        note("a new conversation")
    elif text == "/undo":
        del client.messages[max(first, len(client.messages) - 2) :]
        n_left = (len(client.messages) - first) // 2
        note(f"the conversation has {count_of(n_left, 'exchange')}")
    else:
        note(HELP if text in ("/help", "/?") else f"there is no command {text}; there are\n{HELP}")


def speak(client: ChatClient, text: str, is_live: bool) -> bool:
    """Prints one answer as it comes; Ctrl-C ends it. Returns whether it came."""
    page = Page(is_live)
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


class Page:
    """Where an answer is printed: on a terminal in whole words, with its thoughts dimmed; else the
    answer alone, as it is."""

    def __init__(self, is_live: bool) -> None:
        self._is_live = is_live
        self._console = Console(highlight=False, soft_wrap=True)
        self._wrap = WordWrap(lambda: shutil.get_terminal_size().columns)
        self._is_thinking = self._has_text = False

    def add(self, piece: Piece) -> None:
        if piece.is_thought and not self._is_thinking:
            self._begin_thoughts()
        elif self._is_thinking and not piece.is_thought:
            self._end_thoughts()
        if not self._is_live:
            if not piece.is_thought:
                sys.stdout.write(piece.text)
                sys.stdout.flush()
            return
        self._print(self._wrap.push(piece.text), piece.is_thought)

    def end(self, remark: str = "") -> None:
        """Ends the line; a remark follows on one of its own."""
        if not self._is_live:
            sys.stdout.write("\n")
            sys.stdout.flush()
            return
        self._print(self._wrap.flush() + "\n", self._is_thinking)
        if remark:
            self._print(remark + "\n", is_dim=True)

    def _begin_thoughts(self) -> None:
        self._is_thinking = True
        if self._is_live:
            self._print("thinking…\n", is_dim=True)
        else:
            note("thinking…")

    def _end_thoughts(self) -> None:
        self._is_thinking = False
        if self._is_live:
            self._print(self._wrap.flush() + "\n\n", is_dim=True)
            self._wrap = WordWrap(lambda: shutil.get_terminal_size().columns)

    def _print(self, text: str, is_dim: bool) -> None:
        if text:
            self._console.print(Text(text, "dim" if is_dim else ""), end="")
