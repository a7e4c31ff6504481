"""What begins with a slash in a chat: one row of COMMANDS each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dllama.cli.chat_client import ChatClient
from dllama.cli.talk.kept import load_conversation, save_conversation
from dllama.cli.talk.server_models import choose_model, speed_of
from dllama.cli.talk.settings import set_field, settings_in_words
from dllama.cli.terminal.output import count_of, note
from dllama.errors import ConfigError

Ask = Callable[[str], str]
"""Asks the user for a line."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command works on; `rest` is what follows its name."""

    client: ChatClient
    rest: str
    ask: Ask


class Command(NamedTuple):
    """`run` returns a text to send, if the command asks for an answer."""

    usage: str
    what: str
    run: Callable[[Asked], str | None]


def _clear(asked: Asked) -> None:
    system = asked.client.system
    asked.client.messages.clear()
    asked.client.system = system
    note("a new conversation")


def _undo(asked: Asked) -> None:
    asked.client.take_back()
    n_left = sum(m["role"] == "user" for m in asked.client.messages)
    note(f"the conversation has {count_of(n_left, 'exchange')}")


def _retry(asked: Asked) -> str | None:
    question = asked.client.take_back()
    if question is None:
        note("there is no answer to ask for again")
    return question


def _system(asked: Asked) -> None:
    if asked.rest:
        asked.client.system = "" if asked.rest == "-" else asked.rest
    note(f"the system message: {asked.client.system or 'none'}")


def _set(asked: Asked) -> None:
    name, _, value = asked.rest.partition(" ")
    if name:
        set_field(asked.client.fields, name, value.strip())
    note(settings_in_words(asked.client.fields))


def _model(asked: Asked) -> None:
    choose_model(asked.client, asked.rest, asked.ask)


def _save(asked: Asked) -> None:
    path = _file_of(asked, "/save")
    save_conversation(path, asked.client.messages)
    note(f"saved to {path}")


def _load(asked: Asked) -> None:
    path = _file_of(asked, "/load")
    asked.client.messages = load_conversation(path)
    n = sum(m["role"] == "user" for m in asked.client.messages)
    note(f"{path} is loaded: {count_of(n, 'exchange')}")


def _file_of(asked: Asked, command: str) -> Path:
    if not asked.rest:
        raise ConfigError(f"{command} needs the name of a file: {command} chat.json")
    try:
        return Path(asked.rest).expanduser()
    except RuntimeError as error:  # nobody is called so
        raise ConfigError(f"{asked.rest} leads nowhere: {error}") from error


def _stats(asked: Asked) -> None:
    note(speed_of(asked.client))


def _help(asked: Asked) -> None:
    note(HELP)


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/clear": Command("", "begins a new conversation", _clear),
    "/undo": Command("", "takes the last exchange back", _undo),
    "/retry": Command("", "asks the last question again", _retry),
    "/system": Command("TEXT", "sets the system message (-: none), or shows it", _system),
    "/set": Command("NAME VALUE", "sets a sampler, as temperature 0.2, or shows all", _set),
    "/model": Command("NAME", "chooses another model, from a menu without NAME", _model),
    "/save": Command("FILE", "writes the conversation, as the page exports it", _save),
    "/load": Command("FILE", "reads one", _load),
    "/stats": Command("", "tells how fast the last answer came, and on which nodes", _stats),
}
LEAVE = ("/exit", "/bye", "/quit")
NOT_SEEN = {"/image": "pictures", "/audio": "sounds", "/video": "videos"}  # as llama-cli has them
HELP = "\n".join(
    [f"  {f'{name} {c.usage}':16} {c.what}" for name, c in COMMANDS.items()]
    + [f"  {LEAVE[0]:16} ends the chat; so does Ctrl-D",
       f'  {chr(34) * 3:16} begins and ends a text of several lines; so does Alt-Enter',
       f"  {'Ctrl-C':16} ends an answer"]
)  # fmt: skip


def command(client: ChatClient, text: str, ask: Ask) -> str | None:
    """Carries out a line that begins with a slash. Returns a text to send, None for none. Raises
    DllamaError."""
    name, _, rest = text.partition(" ")
    if name in NOT_SEEN:
        note(f"{name}: no model that runs here takes {NOT_SEEN[name]}; say it in words")
        return None
    found = COMMANDS.get("/help" if name == "/?" else name)
    if found is None:
        note(f"there is no command {name}; there are\n{HELP}")
        return None
    return found.run(Asked(client, rest.strip(), ask))
