"""The folder of models that were pulled: what is in it, and how models appear and go, each whole at
once."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dllama.hub.local_model import LocalModel, Origin
from dllama.hub.receipts import RECEIPT, Receipt, read_receipt, write_receipt
from dllama.hub.repository import Selection

log = logging.getLogger(__name__)

UNFINISHED = "unfinished"  # the folder of what is downloaded now, or was
_MAX_DEPTH = 5  # folders, from that of all models to a model's


class Store:
    """The models below a folder. A model is a folder with its files and a receipt; unfinished ones
    lie apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def models(self) -> list[LocalModel]:
        """Returns the models that are whole, the newest first."""
        found = (self._model(place) for place in self._places())
        return sorted((m for m in found if m is not None), key=lambda m: (-m.modified_s, m.name))

    def unfinished(self) -> list[tuple[Receipt, int]]:
        """Returns the downloads that are not complete, and how many bytes of each are here."""
        found: list[tuple[Receipt, int]] = []
        for place in _folders(self.folder / UNFINISHED):
            receipt = read_receipt(place)
            if receipt is not None:
                found.append((receipt, sum(size for _, size in _files(place))))
        return found

    def home_of(self, selection: Selection) -> Path:
        """Returns the folder that a model has once it is whole."""
        *above, last = selection.folder
        return self.folder.joinpath(*above) / f"{last}-{selection.id}"

    def staging_of(self, model_id: str) -> Path:
        """Returns the folder of a model that is not whole."""
        return self.folder / UNFINISHED / model_id

    def holds(self, selection: Selection) -> bool:
        """Returns whether a model is here, whole."""
        return self._model(self.home_of(selection)) is not None

    def publish(self, selection: Selection, receipt: Receipt) -> None:
        """Moves a model whose files are all right to its home, and removes older ones of its
        name. Raises OSError."""
        staging, home = self.staging_of(selection.id), self.home_of(selection)
        write_receipt(staging, receipt)
        if home.exists():  # a damaged one, else nothing would have been downloaded
            self._drop(home)
        home.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(home)
        for model in self.models():
            if model.name == receipt.name and model.id != receipt.id:
                self.remove(model)

    def remove(self, model: LocalModel) -> None:
        """Removes a pulled model. Programs that have it open keep it until they close it. Raises
        OSError."""
        assert model.origin is Origin.PULLED, "other models belong to other programs"
        for place in self._places():
            receipt = read_receipt(place)
            if receipt is not None and (receipt.name, receipt.id) == (model.name, model.id):
                self._drop(place)

    def discard(self, model_id: str) -> None:
        """Removes what is here of an unfinished model."""
        shutil.rmtree(self.staging_of(model_id), ignore_errors=True)
        self._sweep(self.folder / UNFINISHED)

    def _drop(self, place: Path) -> None:
        """Has a model disappear at once, and then removes its files."""
        trash = self.staging_of(f"removed-{os.getpid()}-{place.name}")
        trash.parent.mkdir(parents=True, exist_ok=True)
        place.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
        self._sweep(place.parent)
        self._sweep(trash.parent)

    def _sweep(self, place: Path) -> None:
        """Removes empty folders, up to that of all models."""
        while place != self.folder and self.folder in place.parents:
            try:
                place.rmdir()
            except OSError:  # it is not empty
                return
            place = place.parent

    def _places(self) -> Iterator[Path]:
        """Yields the folders with receipts."""
        level = [p for p in _folders(self.folder) if p.name != UNFINISHED]
        for _ in range(_MAX_DEPTH):
            below: list[Path] = []
            for place in level:
                if (place / RECEIPT).is_file():
                    yield place
                else:
                    below += _folders(place)
            level = below

    def _model(self, place: Path) -> LocalModel | None:
        """Returns the model in a folder; None where a file is missing or has another size."""
        receipt = read_receipt(place)
        if receipt is None:
            return None
        try:
            for file in receipt.files:
                if (place / file.path).stat().st_size != file.n_bytes:
                    raise FileNotFoundError(file.path)
            modified_s = (place / RECEIPT).stat().st_mtime
        except OSError:
            log.warning("%s is damaged: files are missing. Pull %s again.", place, receipt.name)
            return None
        return LocalModel(
            receipt.name, receipt.id, place / receipt.main if receipt.main else place,
            receipt.n_bytes, modified_s, Origin.PULLED, receipt.revision, receipt.files,
        )  # fmt: skip


def _folders(place: Path) -> list[Path]:
    """Returns the folders in a folder, in order; links are followed to none."""
    try:
        return sorted(p for p in place.iterdir() if p.is_dir() and not p.is_symlink())
    except OSError:
        return []


def _files(place: Path) -> Iterator[tuple[Path, int]]:
    for path in place.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name != RECEIPT:
            yield path, path.stat().st_size
