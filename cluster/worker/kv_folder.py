"""Where a worker keeps the keys and values of saved sessions."""

from __future__ import annotations

import os
from pathlib import Path

from dllama.host.temporary import places
from kernels.cache import cache_root


def kv_folder() -> Path:
    """Returns $DLLAMA_SESSIONS, else a folder beside the compiled kernels."""
    chosen = os.environ.get("DLLAMA_SESSIONS")
    if chosen:
        return Path(chosen)
    root = cache_root()  # None where the user has no home
    return root.parent / "sessions" if root else Path(places()[0]) / f"dllama-{os.getuid()}"
