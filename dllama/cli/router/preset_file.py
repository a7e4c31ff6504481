"""INI files that give each model of a router its flags, as llama-server reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dllama.errors import ConfigError

MAX_PRESET_BYTES = 1 << 20
ALL = "*"  # the section of all models
DEFAULT = "default"  # the model of keys before any section
_SECTION = re.compile(r"\[([^\]]+)\]")
_KEY = re.compile(r"([\w.-]+)\s*=\s*(.*)")
_COMMENT = re.compile(r"\s*[;#].*")


@dataclass(frozen=True, slots=True)
class Presets:
    """The keys of all models, and those of each section, in order. `broken` says of sections with
    a line that cannot be read which one that is, and what was expected."""

    common: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)


def read_presets(path: Path) -> Presets:
    """Returns the sections of a file. Raises ConfigError where it cannot be read, as
    `parse_presets`."""
    try:
        data = path.read_bytes()
        if len(data) > MAX_PRESET_BYTES:
            raise ConfigError(
                f"The preset file {path} has {len(data)} bytes; at most {MAX_PRESET_BYTES} are "
                "read. Is it the file that was meant?"
            )
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The preset file {path} cannot be read: {error}.") from error
    return parse_presets(text, str(path))


def parse_presets(text: str, where: str = "the preset file") -> Presets:
    """Returns the sections of a text. Comments begin with ; or # anywhere in a line. A line that
    cannot be read breaks its section, and one that seems to begin a section the one of that name.
    Raises ConfigError for such a line before all sections, or in that of all models."""
    sections: dict[str, dict[str, str]] = {}
    broken: dict[str, str] = {}
    current, is_named = DEFAULT, False
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = _COMMENT.sub("", line, count=1).strip()
        if not stripped:
            continue
        if found := _SECTION.fullmatch(stripped):
            current, is_named = _upper_tag(found[1].strip()), True
            sections.setdefault(current, {})
        elif found := _KEY.fullmatch(stripped):
            if found[1] != "version":  # of the file's form
                sections.setdefault(current, {})[found[1]] = found[2].strip()
        else:
            fault = (
                f"Line {number} of {where} is {stripped[:80]!r}; expected [name] of a model or "
                "key = value."
            )
            if stripped.startswith("["):
                current, is_named = _upper_tag(stripped.strip("[] ")), True
                sections.setdefault(current, {})
            if not is_named or current in ("", ALL):
                raise ConfigError(fault)
            broken.setdefault(current, fault)
    common = sections.pop(ALL, {})
    return Presets(common, sections, broken)


def _upper_tag(name: str) -> str:
    """Returns a name as the list of cached models has it: user/repo:TAG."""
    model, colon, tag = name.rpartition(":")
    return f"{model}:{tag.upper()}" if colon and "/" in model else name


def shown(name: str, keys: Mapping[str, str]) -> str:
    """Returns a section as a preset file would have it."""
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in keys.items())])
