"""Where models are kept, which hub they come from, and how patiently. What the hub's own library
knows of this machine (its cache, the token of a login, offline mode) is asked of that library."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dllama.errors import ConfigError

FOLDER_VARIABLE = "DLLAMA_MODELS"


@dataclass(frozen=True, slots=True)
class HubSettings:
    """`folder` holds the models that were pulled, `cache` is the hub's own, which is only read.
    `find_token` is called when the network is about to be used."""

    folder: Path
    endpoint: str = "https://huggingface.co"
    cache: Path | None = None
    is_offline: bool = False
    find_token: Callable[[], str | None] = field(default=lambda: None, repr=False)
    max_tasks: int = 4  # that run at once; others wait
    max_files: int = 8  # that are downloaded at once, by all tasks
    max_tries: int = 6  # of a file in a row that bring no byte
    first_wait_s: float = 1.0  # before the second try; each wait is twice the one before
    max_wait_s: float = 60.0
    connect_s: float = 20.0
    stall_s: float = 30.0  # without a byte, and a connection is given up
    spare_bytes: int = 256 << 20  # that stay free on the disk


def models_folder() -> Path:
    """Returns $DLLAMA_MODELS, else the user's folder for data. Raises ConfigError where the user
    has no home."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).absolute()
    xdg = Path(os.environ.get("XDG_DATA_HOME", ""))
    if xdg.is_absolute():  # the specification says to ignore others
        return xdg / "dllama" / "models"
    try:
        home = Path.home()
    except RuntimeError:
        raise ConfigError(
            f"This user has no home to keep models in; set {FOLDER_VARIABLE} to a folder."
        ) from None
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "dllama" / "models"
    return home / ".local" / "share" / "dllama" / "models"


def hub_settings() -> HubSettings:
    """Returns the settings that the environment asks for. Raises ConfigError."""
    from huggingface_hub import constants

    endpoint = constants.ENDPOINT.rstrip("/")
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            f"HF_ENDPOINT is {endpoint!r}, which is no URL of a hub; write https://huggingface.co, "
            "or leave it out."
        )
    return HubSettings(
        folder=models_folder(),
        endpoint=endpoint,
        cache=Path(constants.HF_HUB_CACHE),
        is_offline=bool(constants.HF_HUB_OFFLINE),
        find_token=_token,
    )


def _token() -> str | None:
    """Returns the token of $HF_TOKEN or of `hf auth login`."""
    from huggingface_hub import get_token  # 0.2 s that only a download waits for

    token: str | None = get_token()
    return token
