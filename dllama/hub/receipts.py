"""The file beside a model that says what it is: written last, read with suspicion."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from dllama.hub.names import is_safe_path
from dllama.hub.repository import Selection

RECEIPT = "dllama-model.json"
MAX_RECEIPT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file of a model, below its folder."""

    path: str
    n_bytes: int
    checksum: str
    version: str = ""  # what its server called the content, as RemoteFile has it


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a model that was pulled, or is being pulled."""

    name: str
    id: str
    revision: str
    main: str
    files: tuple[ReceivedFile, ...]

    @property
    def n_bytes(self) -> int:
        return sum(file.n_bytes for file in self.files)


def receipt_of(selection: Selection, checksums: dict[str, str] | None = None) -> Receipt:
    """Returns the receipt of a model; `checksums` are those found, by the files' paths."""
    found = checksums or {}
    files = (
        ReceivedFile(f.path, f.n_bytes, found.get(f.path) or str(f.checksum or ""), f.version)
        for f in selection.files
    )
    return Receipt(selection.name, selection.id, selection.revision, selection.main, tuple(files))


def write_receipt(folder: Path, receipt: Receipt) -> None:
    """Writes a receipt, whole or not at all, and waits for the disk. Raises OSError."""
    told = {
        "name": receipt.name, "id": receipt.id, "revision": receipt.revision, "main": receipt.main,
        "files": [
            {"path": f.path, "bytes": f.n_bytes, "checksum": f.checksum, "version": f.version}
            for f in receipt.files
        ],
    }  # fmt: skip
    beside = folder / (RECEIPT + ".new")
    with beside.open("w") as file:
        json.dump(told, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / RECEIPT)


def read_receipt(folder: Path) -> Receipt | None:
    """Returns the receipt in a folder; None where there is none, or it is not as we write it."""
    try:
        path = folder / RECEIPT
        if path.stat().st_size > MAX_RECEIPT_BYTES:
            return None
        told = json.loads(path.read_bytes())
        files = tuple(
            ReceivedFile(
                str(f["path"]), int(f["bytes"]), str(f["checksum"]), str(f.get("version", ""))
            )
            for f in told["files"]
        )
        receipt = Receipt(
            str(told["name"]), str(told["id"]), str(told["revision"]), str(told["main"]), files
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    paths = [file.path for file in files] + [receipt.main] * bool(receipt.main)
    return receipt if files and all(map(is_safe_path, paths)) else None
