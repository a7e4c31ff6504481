"""Files that others may read while they are written: whole or not at all. And where they lie."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dllama.host.temporary import places
from kernels.cache import cache_root

TEMPORARY = ".writing-"  # how the names of files that are not whole yet begin

Buffer = bytes | bytearray | memoryview


def write_whole(file: Path, data: Buffer) -> None:
    """Writes beside the file and renames. Nothing is left of it after an OSError, which it raises;
    a process that is killed leaves a temporary file.

    The disk is not waited for: whoever reads checks a digest, so that a file which a power cut has
    damaged counts as none.
    """
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
