"""Model files of every supported format, opened by what is in them and not by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dllama.errors import ModelFileError
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

_FOREIGN: dict[bytes, str] = {
    b"FUGG": "a big-endian GGUF file; convert it with gguf_convert_endian of llama.cpp",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint; convert it to GGUF first",
    b"lmgg": "a GGML file from before GGUF; download the model as GGUF",
    b"tjgg": "a GGJT file from before GGUF; download the model as GGUF",
    b"\x00\xcd\xab\x00": "a .m file from before distributed-llama 0.12; convert the model again",
    b"\x01\xcd\xab\x00": "a .m file from before distributed-llama 0.12; convert the model again",
    b"\x24\x71\x56\x00": "a tokenizer (.t), not a model; name the .m file that belongs to it",
    b"vers": "a Git LFS pointer, not the model itself; download it with git lfs pull",
}
"""Files that people take for models, by their first bytes."""


def open_model(path: str | Path) -> WeightSource:
    """Opens the weights in a model file; those of GGUF are a GgufSource, which has `.metadata` too.

    Raises ModelFileError where there is no such file, or it is no model of a known format, or is
    damaged; UnknownTensorType where a tensor has a type without a kernel.
    """
    path = Path(path)
    magic = first_bytes(path)
    if magic in FORMATS:
        return FORMATS[magic][1](path)
    known = " or ".join(name for name, _ in FORMATS.values())
    what = _FOREIGN.get(magic, f"no model file: it begins with {magic!r}")
    raise ModelFileError(f"{path} is {what}. Expected a {known} file.")


def first_bytes(path: Path) -> bytes:
    """Returns the first four bytes of a file. Raises ModelFileError where it cannot be read."""
    file = MappedFile(path)
    try:
        return file.buffer[:4]
    finally:
        file.close()
