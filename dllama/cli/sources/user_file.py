"""config.toml, the user's file: keys of all commands, and a table for each command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dllama.cli.flags.parser import FlagParser
from dllama.cli.sources.level import Entry, Level, by_key, entry_of, level_of
from dllama.errors import ConfigError

FILE_NAME = "config.toml"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class UserFile:
    """`common` are keys of all commands, `tables` those of each. `path` None: there is no file."""

    path: Path | None = None
    common: Mapping[str, object] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def read_user_file(path: Path, is_command: Callable[[str], bool]) -> UserFile:
    """Returns what a file says; an empty one if it is not there. Raises ConfigError where it cannot
    be read, with the line that is no TOML, and for tables of commands that there are not."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return UserFile()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES} bytes; is it the file that was meant?")
    import tomllib

    try:
        found = tomllib.loads(data.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}.") from None
    tables = {key: value for key, value in found.items() if isinstance(value, dict)}
    # A flag may have an object for its value, and no command is called as such a flag.
    objects = {key: value for key, value in tables.items() if not is_command(key)}
    common = {key: value for key, value in found.items() if key not in tables} | objects
    return UserFile(path, common, {k: v for k, v in tables.items() if k not in objects})


def level_of_file(
    parser: FlagParser,
    command: str,
    file: UserFile,
    others: Callable[[], Iterator[tuple[str, FlagParser]]],
) -> Level:
    """Returns what the file sets for a command. `others` makes the parsers of all commands, which
    are asked about keys that this command has no flag for. Raises ConfigError, with the key, for
    those that no command has, and for values that cannot be read."""
    return level_of(parser, _entries(parser, command, file, others))


def _entries(
    parser: FlagParser,
    command: str,
    file: UserFile,
    others: Callable[[], Iterator[tuple[str, FlagParser]]],
) -> Iterator[Entry]:
    flags, own = by_key(parser), set()
    for key, value in file.tables.get(command, {}).items():
        if key not in flags:
            raise _unknown(f"{command}.{key} in {file.path}", key, command, list(flags))
        own.add(flags[key].dest)
        yield entry_of(flags[key], key, _at_home(value), f"{command}.{key} in {file.path}")
    unknown: dict[str, str] = {}
    for key, value in file.common.items():
        origin = f"{key} in {file.path}"
        if key not in flags:
            unknown[key] = origin
        elif flags[key].dest not in own and flags[key].dest not in parser.own:
            yield entry_of(flags[key], key, _at_home(value), origin)
    _check_known(unknown, others)


def _check_known(
    unknown: dict[str, str], others: Callable[[], Iterator[tuple[str, FlagParser]]]
) -> None:
    """Raises ConfigError for the first key that is a flag of no command."""
    if not unknown:
        return
    names: set[str] = set()
    for _, parser in others():
        names |= set(by_key(parser))
        if set(unknown) <= names:
            return
    key = next(key for key in unknown if key not in names)
    raise _unknown(unknown[key], key, "any command", sorted(names))


def _unknown(origin: str, key: str, whose: str, names: list[str]) -> ConfigError:
    from difflib import get_close_matches

    near = get_close_matches(key, names, n=1)
    hint = f"is {near[0]} meant?" if near else "dllama COMMAND --help lists the flags."
    return ConfigError(f"{origin} is no flag of {whose}, written without its dashes; {hint}")


def _at_home(value: object) -> object:
    """Returns a path of the user's home as the shell would have written it."""
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    return value
