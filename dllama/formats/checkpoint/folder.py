"""The files of a checkpoint: which of a folder's files hold weights, and its JSON, with limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.formats.mapped import FOREIGN_FOLDERS, MappedFile
from dllama.formats.safetensors import StoredTensor, read_safetensors

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
RANKS = "tiktoken.model"  # of Kimi-K2's tokenizer, which has no tokenizer.json
INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
MAX_JSON_BYTES = 256 << 20  # tokenizer.json of a vocabulary of 256k tokens has 33 MB
_MAX_FILES = 2048


def checkpoint_folder(path: Path) -> Path | None:
    """Returns the folder of the checkpoint that `path` names: the folder itself, or its config, its
    index or one of its safetensors files; None where `path` is nothing of the kind."""
    try:
        if path.is_dir():
            return path if (path / CONFIG).is_file() else None
        is_part = path.suffix == ".safetensors" or path.name in (CONFIG, INDEX)
        return path.parent if is_part and path.is_file() else None
    except OSError:  # opening it says so
        return None


def tokenizer_folder(path: Path) -> Path | None:
    """Returns the folder whose tokenizer `path` names: that of a checkpoint, or a folder with no
    more than a tokenizer, or the file with it; None where `path` is nothing of the kind."""
    files = (TOKENIZER, RANKS)
    try:
        if path.is_dir() and any((path / name).is_file() for name in files):
            return path
        if path.name in files and path.is_file():
            return path.parent
    except OSError:
        return None
    return checkpoint_folder(path)


def checkpoint_name(folder: Path) -> str:
    """Returns the name of the model in a folder: the folder's own, or the repository's where it is
    a snapshot in the cache of `huggingface_hub` (models--OWNER--NAME/snapshots/REVISION)."""
    whole = folder.absolute()
    if whole.parent.name == "snapshots" and whole.parents[1].name.startswith("models--"):
        return whole.parents[1].name.rpartition("--")[2]
    return (folder.resolve() if whole.name in ("", "..") else whole).name


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # half a character, if the other half does not follow


def read_json(path: Path) -> dict[str, object]:
    """Returns the object in a JSON file. Raises ModelFileError."""
    content = read_bytes(path)
    try:
        found = json.loads(content)
        if _HALF.search(content) is not None:
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} is no JSON ({str(error)[:200]}); download it again."
        ) from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} holds no JSON object; download it again.")
    return found


def read_bytes(path: Path) -> bytes:
    """Returns a small file of a model. Raises ModelFileError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFileError(
                f"{path} has {path.stat().st_size} bytes; at most {MAX_JSON_BYTES} are read. "
                f"Is it the file that its name says?"
            )
        return path.read_bytes()
    except FileNotFoundError:
        for name, what in FOREIGN_FOLDERS.items() if path.name == CONFIG else ():
            if (path.parent / name).is_file():
                raise ModelFileError(f"{path.parent} is {what}.") from None
        raise ModelFileError(
            f"{path.parent} has no {path.name}, which belongs to every model in safetensors files; "
            f"download the whole folder of the model."
        ) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror or error}).") from error


class WeightFiles:
    """The mapped safetensors files of a checkpoint, and all their tensors by name. Raises
    ModelFileError where one is missing or damaged, or they do not fit each other."""

    def __init__(self, folder: Path, named: Path | None = None) -> None:
        """`named`: the file that the user named, which counts where no index does."""
        self.folder = folder
        self.files: list[MappedFile] = []
        self.tensors: dict[str, StoredTensor] = {}
        wanted = _index(folder)
        try:
            for path in _paths(folder, named, wanted):
                self._open(path)
            self._check_index(wanted)
        except BaseException:
            self.close()
            raise

    @property
    def n_bytes(self) -> int:
        """Returns the size of all files on disk."""
        return sum(file.size for file in self.files)

    @property
    def stamp(self) -> str:
        return "\n".join(file.stamp for file in self.files)

    def close(self) -> None:
        for file in self.files:
            file.close()

    def _open(self, path: Path) -> None:
        file = MappedFile(path)
        self.files.append(file)
        for name, tensor in read_safetensors(file).items():
            if name in self.tensors:
                raise ModelFileError(
                    f"The tensor {name!r} is in {self.tensors[name].file.path} and in {path}; "
                    f"a model has each once. Download the model again."
                )
            self.tensors[name] = tensor

    def _check_index(self, wanted: dict[str, str]) -> None:
        for name, file_name in wanted.items():
            if name not in self.tensors or self.tensors[name].file.path.name != file_name:
                raise ModelFileError(
                    f"{self.folder / INDEX} says that the tensor {name!r} is in {file_name}, which "
                    f"does not hold it; download the model again."
                )


def _index(folder: Path) -> dict[str, str]:
    """Returns the file of each tensor as the index says; nothing where there is none."""
    if not (folder / INDEX).exists():
        return {}
    found = read_json(folder / INDEX).get("weight_map")
    is_sound = isinstance(found, dict) and all(
        isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors")
        for name in found.values()
    )
    if not isinstance(found, dict) or not found or not is_sound:
        raise ModelFileError(
            f"{folder / INDEX} has no `weight_map` from tensors to safetensors files beside it; "
            f"download it again."
        )
    return found


def _paths(folder: Path, named: Path | None, wanted: dict[str, str]) -> list[Path]:
    """Returns the files that hold the weights."""
    if wanted:
        names = sorted(set(wanted.values()))
        if len(names) > _MAX_FILES:
            raise ModelFileError(
                f"{folder / INDEX} names {len(names)} files; {_MAX_FILES} at most."
            )
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise ModelFileError(
                f"{folder} lacks {len(missing)} of {len(names)} files that {INDEX} names, such as "
                f"{missing[0]}; download the whole folder of the model."
            )
        return [folder / name for name in names]
    if named is not None and named.suffix == ".safetensors":
        return [named]
    found = sorted(folder.glob("*.safetensors"))
    whole = [path for path in found if path.name == WHOLE] or found
    if len(whole) == 1:
        return whole
    hint = (
        f"it has {len(found)} safetensors files and no {INDEX}; name one of them, or download the "
        f"index too"
        if found
        else "it has no safetensors files; weights of other kinds (.bin, .pth) are not read, "
        "as they are Python pickles"
    )
    raise ModelFileError(f"The weights of {folder} are not to be found: {hint}.")
