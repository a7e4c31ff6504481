"""The folder of what a node knows of itself and of others."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dllama.errors import ConfigError


def home_folder() -> Path:
    """Returns $DLLAMA_HOME, else the user's folder for configurations. Raises ConfigError where the
    user has none."""
    if chosen := os.environ.get("DLLAMA_HOME"):
        return Path(chosen)
    xdg = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if xdg.is_absolute():  # the specification says to ignore others
        return xdg / "dllama"
    try:
        home = Path.home()
    except RuntimeError:
        raise ConfigError(
            "this user has no home to keep the key of this node in; set DLLAMA_HOME to a folder "
            "that can be written, or use --no-encrypt on every node"
        ) from None
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", home)) / "dllama"
    return home / ".config" / "dllama"
