"""Model files of every supported format, opened by what is in them and not by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.folder import checkpoint_folder
from dllama.formats.foreign import HEAD_BYTES, describe_foreign
from dllama.formats.gguf import MAGIC as GGUF_MAGIC
from dllama.formats.gguf_source import GgufSource
from dllama.formats.m_file import MFileSource
from dllama.formats.m_layout import MAGIC as M_MAGIC
from dllama.formats.mapped import MappedFile
from dllama.weight_source import WeightSource

FORMATS: dict[bytes, tuple[str, Callable[[Path], WeightSource]]] = {
    GGUF_MAGIC: ("GGUF", GgufSource),
    M_MAGIC: ("distributed-llama .m", MFileSource),
}
"""The first bytes of a file, the format's name, and what opens it."""

CHECKPOINT = "safetensors"
"""The format of folders with config.json, which have no first bytes."""


def open_model(path: str | Path) -> WeightSource:
    """Opens the weights of a model: a file, or a folder of safetensors files. Those of GGUF are a
    GgufSource, those of a folder a CheckpointSource, which both have `.metadata` too.

    Raises ModelFileError where there is no such file, or it is no model of a known format, or is
    damaged; UnknownTensorType where a tensor has a type without a kernel.
    """
    path = Path(path)
    check_is_model(path)
    if checkpoint_folder(path) is not None:
        # Imported here, as most models are files, and every start would wait for it.
        from dllama.formats.checkpoint.source import CheckpointSource

        return CheckpointSource(path)
    return FORMATS[first_bytes(path)][1](path)


def check_is_model(path: Path) -> None:
    """Raises ModelFileError, with what it is instead, where a path is no model of a known format,
    whatever its name says."""
    if checkpoint_folder(path) is None and first_bytes(path) not in FORMATS:
        known = " or ".join(name for name, _ in FORMATS.values())
        what = describe_foreign(first_bytes(path, HEAD_BYTES))
        raise ModelFileError(
            f"{path} is {what}. Expected a {known} file, or a folder of a model in safetensors "
            f"files."
        )


def format_of(path: Path) -> str:
    """Returns the name of a model's format. Raises ModelFileError."""
    check_is_model(path)
    return CHECKPOINT if checkpoint_folder(path) is not None else FORMATS[first_bytes(path)][0]


def first_bytes(path: Path, n_bytes: int = 4) -> bytes:
    """Returns the first bytes of a file. Raises ModelFileError where it cannot be read."""
    file = MappedFile(path)
    try:
        return file.buffer[:n_bytes]
    finally:
        file.close()
