"""The models in a folder: files, files in parts, and folders with one model each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dllama.errors import ConfigError
from dllama.formats.checkpoint.folder import checkpoint_folder

ENDINGS = (".gguf", ".m")
NO_MODELS = ("mtp-", "dspark-", "dflash-", "eagle3-")  # how files begin that belong to a model
PROJECTOR = "mmproj"  # part of the names of files for pictures
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model on disk. `path` is what --model takes."""

    name: str
    path: Path
    size_bytes: int
    modified_s: float


def models_in(folder: Path) -> list[FoundModel]:
    """Returns the models in a folder, by name: each file, and one of each folder in it. Raises
    ConfigError where there is no such folder."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"The models in {folder} cannot be listed: {error.strerror or error}; name a folder "
            "with --models-dir."
        ) from error
    found: dict[str, FoundModel] = {}
    for model in (*_files(entries), *map(_of_folder, entries)):
        if model is not None:
            found.setdefault(model.name, model)
    return list(found.values())


def _files(paths: Iterable[Path]) -> list[FoundModel]:
    """Returns a model for each file of one; of several parts the first stands for all."""
    files = [path for path in paths if _is_model_file(path)]
    parts: dict[str, list[Path]] = {}
    for path in files:
        parts.setdefault(_PART.sub("", path.stem), []).append(path)
    found = []
    for name, group in parts.items():
        with suppress(OSError):  # it was removed this very moment
            found.append(_model(name, group[0], group))
    return found


def _is_model_file(path: Path) -> bool:
    name = path.name.lower()
    is_extra = PROJECTOR in name or name.startswith(NO_MODELS)
    return name.endswith(ENDINGS) and not is_extra and _is_file(path)


def _is_file(path: Path) -> bool:
    """Returns whether there is a file; a link that leads to where we may not look is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _of_folder(path: Path) -> FoundModel | None:
    """Returns the model of a folder: safetensors with their config.json, or its first GGUF or .m
    file, those in parts before others."""
    if _is_file(path):
        return None
    try:
        if checkpoint_folder(path) is not None and any(path.glob("*.safetensors")):
            return _model(path.name, path, sorted(path.glob("*.safetensors")))
        files = sorted(file for file in path.iterdir() if _is_model_file(file))
    except OSError:
        return None  # a folder of somebody else
    in_parts = [file for file in files if _PART.search(file.stem)]
    found = _files(in_parts or files)
    return FoundModel(path.name, *_rest(found[0])) if found else None


def _rest(model: FoundModel) -> tuple[Path, int, float]:
    return model.path, model.size_bytes, model.modified_s


def _model(name: str, path: Path, files: Iterable[Path]) -> FoundModel:
    facts = [file.stat() for file in files]
    size = sum(fact.st_size for fact in facts)
    return FoundModel(name, path, size, max(fact.st_mtime for fact in facts))


def file_facts(path: Path) -> tuple[int, float]:
    """Returns the size and the time of a model that was named by its path; zeros where it cannot be
    read, which is told when it is loaded."""
    try:
        if path.is_dir():
            files = list(path.glob("*.safetensors"))
        else:
            stem = _PART.sub("", path.stem)
            files = [f for f in path.parent.iterdir() if _PART.sub("", f.stem) == stem]
            files = [f for f in files if f.suffix == path.suffix]
        found = _model(path.name, path, files)
    except (OSError, ValueError):
        return 0, 0.0
    return found.size_bytes, found.modified_s
