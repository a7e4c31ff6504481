"""Files that people take for models or tokenizers, and what they are: a download that went wrong,
or a model in another format."""

from __future__ import annotations

import struct

from dllama.formats.m_layout import MAGIC as M_MAGIC

HEAD_BYTES = 512  # of a file, enough to know it by

_BEGINNINGS: dict[bytes, str] = {
    b"GGUF": "a GGUF file",
    b"FUGG": "a big-endian GGUF file; convert it with gguf_convert_endian of llama.cpp",
    b"GGU": "only the first bytes of a GGUF file; download it again",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint; convert it to GGUF first",
    b"PK\x05\x06": "an empty zip archive; download the model as GGUF",
    b"lmgg": "a GGML file from before GGUF; download the model as GGUF",
    b"tjgg": "a GGJT file from before GGUF; download the model as GGUF",
    b"fmgg": "a GGMF file from before GGUF; download the model as GGUF",
    b"\x80\x02": "a Python pickle, perhaps a PyTorch checkpoint; convert it to GGUF first",
    b"\x00\xcd\xab\x00": "a .m file from before distributed-llama 0.12; convert the model again",
    b"\x01\xcd\xab\x00": "a .m file from before distributed-llama 0.12; convert the model again",
    b"\x24\x71\x56\x00": "a tokenizer (.t), not a model; name the .m file that belongs to it",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; download it with git lfs "
    "pull",
    M_MAGIC: "a distributed-llama model (.m), which holds no tokenizer; name its .t file",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"\n\x0e\n\x05<unk>": "a SentencePiece tokenizer; dllama takes tokenizers from GGUF and .t "
    "files",
}
"""What a file is, by its first bytes; the longest that fits says it."""


def describe_foreign(head: bytes) -> str:
    """Returns what a file is that begins with `head`, its first HEAD_BYTES, as the end of the
    sentence "this file is"."""
    fitting = [start for start in _BEGINNINGS if head.startswith(start)]
    if fitting:
        return _BEGINNINGS[max(fitting, key=len)]
    if _is_safetensors(head):
        return "a safetensors file under another name; give it back its own, beside its config.json"
    if not any(head):
        return "full of zeros, as a download that was cut off leaves it; download it again"
    return _describe_text(head) or f"of no known format: it begins with {head[:4]!r}"


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9:
        return False
    (n_bytes,) = struct.unpack_from("<Q", head)
    return 2 <= n_bytes < 1 << 30 and head[8:9] == b"{"


def _describe_text(head: bytes) -> str | None:
    """Returns what a text is, None where `head` is none. Its first words are shown: a server that
    refuses a download says why in them."""
    try:
        text = head.decode("utf-8-sig", "strict" if len(head) < HEAD_BYTES else "ignore").strip()
    except UnicodeDecodeError:
        return None
    if not text or not all(char.isprintable() or char.isspace() for char in text):
        return None
    start = text[:15].lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<?xml", "<error")):
        return "a web page, not the file that was to be downloaded; use the link to the file itself"
    kind = "a JSON text" if start.startswith(("{", "[")) else "a text"
    shown = " ".join(text[:60].split())
    return f"{kind} that begins with {shown!r}; see whether the download was refused"
