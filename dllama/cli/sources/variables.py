"""The variables DLLAMA_*: one for each flag, and one for each flag of each command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dllama.cli.flags.parser import FlagParser
from dllama.cli.sources.level import Entry, Level, by_key, entry_of, level_of

PREFIX = "DLLAMA_"
OTHERS = {
    "DLLAMA_HOME": "the folder of keys, pins and config.toml",
    "DLLAMA_MODELS": "the folder of pulled models",
    "DLLAMA_CACHE": "the folder of compiled kernels and kept weights",
    "DLLAMA_SESSIONS": "the folder of saved sessions on a worker",
    "DLLAMA_ISA": "the instructions that kernels may use",
    "DLLAMA_SHARED_MEMORY": "0: ranks of one machine share no memory",
    "DLLAMA_LINES": "0: sums of ranks on several machines go by ZeroMQ alone",
    "DLLAMA_ENCRYPT_LOOPBACK": "1: encrypts links within one machine too",
    "DLLAMA_SHARED": "the folder of the data of tests",
    "DLLAMA_TESTS": "which tests are run",
}
"""Variables that are no flag's."""


def variable_of(key: str, command: str | None = None) -> str:
    """Returns the variable of a flag, of one command or of all."""
    words = (command, key) if command else (key,)
    return PREFIX + "_".join(words).replace("-", "_").upper()


def level_of_variables(parser: FlagParser, command: str, environment: Mapping[str, str]) -> Level:
    """Returns what the environment sets for a command. Raises ConfigError, with the variable's
    name, for a value that cannot be read. An empty variable is not looked at."""
    return level_of(parser, _entries(parser, command, environment))


def _entries(parser: FlagParser, command: str, environment: Mapping[str, str]) -> Iterator[Entry]:
    own: set[str] = set()
    for for_command in (command, None):
        found = []
        for key, action in by_key(parser).items():
            name = variable_of(key, for_command)
            is_meant = for_command is not None or action.dest not in parser.own
            if environment.get(name) and is_meant and action.dest not in own:
                found.append(entry_of(action, key, environment[name], f"${name}"))
        own |= {entry.action.dest for entry in found}
        yield from found


def unknown_variables(
    parsers: Mapping[str, FlagParser], environment: Mapping[str, str]
) -> list[str]:
    """Returns the variables DLLAMA_* that no command has a flag for."""
    known = set(OTHERS)
    for command, parser in parsers.items():
        for key in by_key(parser):
            known |= {variable_of(key), variable_of(key, command)}
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
