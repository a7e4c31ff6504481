"""From the keys of a preset to the flags of dllama-root."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NoReturn

from api.models.entry import DEFAULT_STOP_S
from dllama.cli.flags.durations import seconds
from dllama.cli.flags.environment import OFF, ON, PREFIX, SWITCHES, VALUES
from dllama.errors import ConfigError

# Flags of the server and its list, which one model cannot have for itself.
SERVER_DESTS = frozenset(
    {
        "host", "port", "api_key", "api_key_file", "ssl_cert_file", "ssl_key_file",
        "drain_timeout", "max_body", "strict_fields", "api_prefix", "slots", "props", "ui",
        "timeout", "sse_ping_interval", "cors_origins", "verbose", "log_level", "log_format",
        "help", "version",
        "models_dir", "models_preset", "models_max", "models_memory", "models_autoload",
    }
)  # fmt: skip


class PresetParser(argparse.ArgumentParser):
    """Raises ConfigError for flags that it cannot read."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


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


def words_of(keys: Mapping[str, str], parser: argparse.ArgumentParser) -> list[str]:
    """Returns keys as words of a command line: a key is a flag without its dashes, or a variable
    of llama-server's environment. Raises ConfigError."""
    return [word for key, value in keys.items() for word in _words(key, value, parser)]


def _words(key: str, value: str, parser: argparse.ArgumentParser) -> list[str]:
    actions: Mapping[str, argparse.Action] = parser._option_string_actions
    flag = _flag_of(key, actions)
    action = actions[flag]
    if action.dest in SERVER_DESTS:
        raise ConfigError(
            f"{key} is about the server or its list of models, and no model has it for itself; "
            "give it on the command line."
        )
    if isinstance(action, argparse.BooleanOptionalAction):
        names: Sequence[str] = action.option_strings
        is_no = flag.startswith("--no-")
        return [names[-1] if is_on(key, value) == is_no else names[0]]
    if action.nargs == 0:
        return [flag] if is_on(key, value) else []
    if action.nargs not in (None, "?", 1):
        raise ConfigError(f"{key} takes {action.nargs} values, and a key has one.")
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def _flag_of(key: str, actions: Mapping[str, argparse.Action]) -> str:
    name = key.removeprefix(PREFIX)
    candidates: list[str] = [f"--{key}", f"-{key}", VALUES.get(name, ""), *SWITCHES.get(name, ())]
    for flag in candidates:
        if flag in actions:
            return flag
    raise ConfigError(
        f"{key} is no flag of a model; see dllama-root --help, and leave out the dashes."
    )


def is_on(key: str, value: str) -> bool:
    """Returns what a switch says. Raises ConfigError."""
    if value.lower() in (*ON, *OFF):
        return value.lower() in ON
    raise ConfigError(f"{key} is {value!r:.40}; write true or false.")
