"""Conversations in files, as the page in the browser exports and takes them."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from dllama.errors import ConfigError

MAX_BYTES = 64 << 20
ROLES = ("system", "user", "assistant")

Message = dict[str, str]


def save_conversation(path: Path, messages: list[Message]) -> None:
    """Writes a conversation. Raises ConfigError where that is not possible."""
    system = next((m["content"] for m in messages if m["role"] == "system"), "")
    now = int(time.time() * 1000)
    kept = {
        "id": os.urandom(8).hex(), "title": "", "created": now, "updated": now, "system": system,
        "settings": {}, "messages": [m for m in messages if m["role"] != "system"],
    }  # fmt: skip
    if not path.name:
        raise ConfigError(f"{path} is a folder; name a file in it")
    # Half a character, as a terminal may send it, is none that a file can hold.
    text = json.dumps([kept], ensure_ascii=False, indent=1).encode(errors="replace")
    unfinished = path.with_name(path.name + ".part")
    try:
        unfinished.write_bytes(text)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def load_conversation(path: Path) -> list[Message]:
    """Returns the messages of a file, of the latest conversation in it. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than any conversation ({MAX_BYTES >> 20} MiB)")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    if isinstance(found, list) and found and all(isinstance(one, dict) for one in found):
        found = max(found, key=lambda one: _number(one.get("updated")))
    if not isinstance(found, dict) or not isinstance(found.get("messages"), list):
        raise ConfigError(f"{path} holds no conversation; expected a file of /save or of the page")
    messages = [_message(path, one) for one in found["messages"]]
    system = found.get("system")
    if isinstance(system, str) and system:
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _message(path: Path, value: object) -> Message:
    if isinstance(value, dict):
        role, content = value.get("role"), value.get("content")
        if role in ROLES and isinstance(content, str):
            return {"role": role, "content": content}
    raise ConfigError(f"{path} holds a message that is none: expected a role and a text")
