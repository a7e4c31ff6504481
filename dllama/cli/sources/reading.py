"""Reads the flags of a command, from wherever this user and this process have them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cluster.security.home import home_folder
from dllama.cli.command_table import all_parsers, is_command
from dllama.cli.flags.parser import FlagParser
from dllama.cli.sources.level import Level
from dllama.cli.sources.llama_variables import environment_level
from dllama.cli.sources.resolve import Resolved, resolve, typed
from dllama.cli.sources.user_file import FILE_NAME, UserFile, level_of_file, read_user_file
from dllama.cli.sources.variables import level_of_variables
from dllama.errors import ConfigError

SERVER = "root"


def user_file() -> UserFile:
    """Returns the user's file. Raises ConfigError where it cannot be read."""
    try:
        path = home_folder() / FILE_NAME
    except ConfigError:  # a user without a home has no file
        return UserFile()
    return read_user_file(path, is_command)


def read_flags(parser: FlagParser, command: str, words: Sequence[str]) -> Resolved:
    """Returns the flags of a command. Raises ConfigError; argparse ends the process for words that
    it cannot read."""
    first, rest = typed(parser, words)
    return resolve(parser, [first, *untyped(parser, command)], rest)


def untyped(parser: FlagParser, command: str) -> list[Level]:
    """Returns what is set besides the command line: by our variables, by llama-server's where the
    command is a server, and last in the user's file. Raises ConfigError."""
    levels = [level_of_variables(parser, command, os.environ)]
    if command == SERVER:
        levels.append(environment_level(parser, os.environ))
    return [*levels, level_of_file(parser, command, user_file(), all_parsers)]
