"""What dllama does without a command: a server with a chat, one of the two, or one answer."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from dllama.errors import ConfigError


class Mode(StrEnum):
    """`--server`, `--chat` and `--cli` force theirs."""

    HYBRID = "hybrid"
    SERVER = "server"
    CHAT = "chat"
    CLI = "cli"


FORCED = {f"--{mode}": mode for mode in (Mode.SERVER, Mode.CHAT, Mode.CLI)}
PROMPT = ("-p", "--prompt")


def mode_of(
    words: Sequence[str], *, is_typed_to: bool, is_read_by_a_person: bool
) -> tuple[Mode, list[str]]:
    """Returns the mode, and the words for its parser. `is_typed_to`: standard input is a terminal;
    `is_read_by_a_person`: standard output is one. Raises ConfigError for modes that exclude each
    other, and for a prompt where nobody answers it."""
    named = list(dict.fromkeys(word for word in words if word in FORCED))
    rest = [word for word in words if word not in FORCED]
    has_prompt = any(word in PROMPT or word.startswith("--prompt=") for word in rest)
    if len(named) > 1:
        raise ConfigError(f"{named[0]} and {named[1]} exclude each other; leave one of them out.")
    mode = FORCED[named[0]] if named else None
    if has_prompt and mode in (Mode.SERVER, Mode.CHAT):
        raise ConfigError(
            f"-p is a prompt that is answered at once, and {named[0]} waits for others; leave one "
            "of them out. --system is for a system message."
        )
    if mode is None:
        is_chat = is_typed_to and is_read_by_a_person and not has_prompt
        mode = Mode.HYBRID if is_chat else Mode.CLI
    return mode, rest
