"""What /set changes: fields of the requests that follow."""

from __future__ import annotations

from dllama.errors import ConfigError
from dllama.requests import SAMPLING_NUMBERS

OTHERS = ("seed", "max_tokens")
UNSET = ("", "-", "default")


def set_field(fields: dict[str, object], name: str, value: str) -> None:
    """Sets a number; without one the server chooses again. Raises ConfigError for what is none."""
    kinds = {number.name: number.type for number in SAMPLING_NUMBERS} | dict.fromkeys(OTHERS, int)
    kind = kinds.get(name)
    if kind is None:
        raise ConfigError(f"there is no setting {name!r}; there are {', '.join(kinds)}")
    if value in UNSET:
        fields.pop(name, None)
        return
    try:
        fields[name] = kind(value)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} is {value!r}; expected {expected}") from None


def settings_in_words(fields: dict[str, object]) -> str:
    """Returns what is set."""
    shown = [f"{name} {value}" for name, value in fields.items() if name != "model"]
    return f"set: {', '.join(shown)}" if shown else "nothing is set: the server chooses"
