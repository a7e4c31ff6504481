"""From the keys of a preset to the flags of dllama-root."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from api.models.entry import DEFAULT_STOP_S
from dllama.cli.flags import router, server
from dllama.cli.flags.durations import seconds
from dllama.cli.flags.parser import FlagParser
from dllama.cli.sources.level import OFF, ON, Entry, Level, level_of, words_of
from dllama.cli.sources.llama_variables import PREFIX, SWITCHES, VALUES
from dllama.errors import ConfigError

SERVER_GROUPS = (server.GROUP, router.GROUP)  # of flags that one model cannot have for itself


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """What only presets say of a model."""

    load_on_startup: bool = False
    stop_timeout: float = DEFAULT_STOP_S
    pin: bool = False
    dedup_cache_models: bool = False


def own_keys(keys: Mapping[str, str]) -> tuple[OwnKeys, dict[str, str]]:
    """Returns what only presets say, and the other keys. Raises ConfigError."""
    own, names = OwnKeys(), {one.name: one.name.replace("_", "-") for one in fields(OwnKeys)}
    for field, key in names.items():
        if key not in keys:
            continue
        if field == "stop_timeout":
            try:
                own = replace(own, stop_timeout=seconds(keys[key]))
            except argparse.ArgumentTypeError as error:
                raise ConfigError(f"{key}: {error}") from None
        else:
            own = replace(own, **{field: is_on(key, keys[key])})
    return own, {key: value for key, value in keys.items() if key not in names.values()}


def preset_level(keys: Mapping[str, str], parser: FlagParser) -> Level:
    """Returns what the keys of a section set. Raises ConfigError."""
    return level_of(parser, preset_entries(keys, parser))


def words_of_keys(keys: Mapping[str, str], parser: FlagParser) -> list[str]:
    """Returns keys as words of a command line. Raises ConfigError."""
    return [word for entry in preset_entries(keys, parser) for word in words_of(entry)]


def preset_entries(keys: Mapping[str, str], parser: FlagParser) -> Iterator[Entry]:
    """Yields what keys say: a key is a flag without its dashes, or a variable of llama-server's
    environment. Raises ConfigError."""
    not_for_models = server_dests(parser)
    for key, value in keys.items():
        flag = _flag_of(key, parser)
        action = parser.action_of(flag)
        if action.dest in not_for_models:
            raise ConfigError(
                f"{key} is about the server or its list of models, and no model has it for itself; "
                "give it on the command line."
            )
        yield Entry(action, flag, value, key)


def server_dests(parser: FlagParser) -> frozenset[str]:
    """Returns the flags of the server and of its list of models."""
    return frozenset(
        action.dest
        for group in parser._action_groups
        if group.title in SERVER_GROUPS
        for action in group._group_actions
    )


def _flag_of(key: str, parser: FlagParser) -> str:
    name = key.removeprefix(PREFIX)
    candidates: list[str] = [f"--{key}", f"-{key}", VALUES.get(name, ""), *SWITCHES.get(name, ())]
    for flag in candidates:
        if flag in parser._option_string_actions and key not in ("help", "h", "version"):
            return flag
    raise ConfigError(
        f"{key} is no flag of a model; see dllama-root --help, and leave out the dashes."
    )


def is_on(key: str, value: str) -> bool:
    """Returns what a switch says. Raises ConfigError."""
    if value.lower() in (*ON, *OFF):
        return value.lower() in ON
    raise ConfigError(f"{key} is {value!r:.40}; write true or false.")
