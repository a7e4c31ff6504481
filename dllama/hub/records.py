"""The file beside a model that says what it is: written last, read with suspicion."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dllama.hub.names import is_safe_path
from dllama.hub.repository import Selection

RECORD = "dllama-model.json"
MAX_RECORD_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of a model, below its folder."""

    path: str
    n_bytes: int
    checksum: str


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What is known of a model that was pulled, or is being pulled."""

    name: str
    id: str
    revision: str
    main: str
    files: tuple[FileRecord, ...]

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)


def record_of(selection: Selection, checksums: dict[str, str] | None = None) -> ModelRecord:
    """Returns the record of a model; `checksums` are those found, by the files' paths."""
    found = checksums or {}
    files = (
        FileRecord(f.path, f.n_bytes, found.get(f.path) or str(f.checksum or ""))
        for f in selection.files
    )
    return ModelRecord(
        selection.name, selection.id, selection.revision, selection.main, tuple(files)
    )


def write_record(folder: Path, record: ModelRecord) -> None:
    """Writes a record, whole or not at all, and waits for the disk. Raises OSError."""
    told = {
        "name": record.name, "id": record.id, "revision": record.revision, "main": record.main,
        "files": [{"path": f.path, "bytes": f.n_bytes, "checksum": f.checksum}
                  for f in record.files],
    }  # fmt: skip
    beside = folder / (RECORD + ".new")
    with beside.open("w") as file:
        json.dump(told, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / RECORD)


def read_record(folder: Path) -> ModelRecord | None:
    """Returns the record in a folder; None where there is none, or it is not as we write it."""
    try:
        path = folder / RECORD
        if path.stat().st_size > MAX_RECORD_BYTES:
            return None
        told = json.loads(path.read_bytes())
        files = tuple(
            FileRecord(str(f["path"]), int(f["bytes"]), str(f["checksum"])) for f in told["files"]
        )
        record = ModelRecord(
            str(told["name"]), str(told["id"]), str(told["revision"]), str(told["main"]), files
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    paths = [file.path for file in files] + [record.main] * bool(record.main)
    return record if files and all(map(is_safe_path, paths)) else None
