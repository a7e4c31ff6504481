"""Where files of weights lie."""

from __future__ import annotations

import os
from pathlib import Path

from dllama.host.temporary import places
from kernels.cache import cache_root


def digests_folder() -> Path | None:
    """Where a root keeps the digests of its models: beside the compiled kernels; None where the
    user has no home."""
    root = cache_root()
    return None if root is None else root.parent / "digests"


def weights_folder() -> Path:
    """Where a worker keeps weights: beside the compiled kernels, or a folder for temporary files
    where the user has no home."""
    root = cache_root()
    if root is not None:
        return root.parent / "weights"
    return Path(places()[0]) / f"dllama-{os.getuid()}" / "weights"
