"""A model that is on this machine, whoever brought it here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dllama.hub.receipts import ReceivedFile


class Origin(StrEnum):
    """Who keeps a model."""

    PULLED = "dllama"
    HUB_CACHE = "hub cache"  # huggingface_hub's, which is only read


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model under its whole name. `path` is what --model takes: a file, or a folder."""

    name: str
    id: str
    path: Path
    n_bytes: int
    modified_s: float
    origin: Origin
    revision: str = ""
    files: tuple[ReceivedFile, ...] = ()
