"""Free room on disks."""

from __future__ import annotations

import shutil
from pathlib import Path

from dllama.errors import ConfigError


def check_room(path: Path, n_bytes: int) -> None:
    """Raises ConfigError where the disk of a path has no room for a file of this size, or where its
    folder is not there."""
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent}; make it first")
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise ConfigError(
            f"{path} will have {n_bytes / 1e9:.2f} GB, and its disk has {free / 1e9:.2f} GB free; "
            "make room, or name a file on another disk"
        )
