"""Files that others may read while they are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
