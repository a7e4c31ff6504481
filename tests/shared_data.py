"""Where the public data for tests lies: beside the repository, in ../shared, or where the
environment variable DLLAMA_SHARED says. Tests that need it skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]


def shared_dir() -> Path:
    """The folder of shared data; it need not exist."""
    return Path(os.environ.get("DLLAMA_SHARED") or _REPOSITORY.parent / "shared")


def shared_file(name: str) -> Path:
    """The path of a file or folder under `data/`; the test that asks is skipped without it."""
    path = shared_dir() / "data" / name
    if not path.exists():
        pytest.skip(f"needs {path}; set DLLAMA_SHARED to the folder that holds data/{name}")
    return path


def shared_names(pattern: str) -> list[str]:
    """Names under `data/` that match a glob, sorted; for parametrizing. Empty where absent."""
    data = shared_dir() / "data"
    return sorted(str(path.relative_to(data)) for path in data.glob(pattern))
