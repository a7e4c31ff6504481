"""distributed-llama's tokenizer files (`.t`): reading and writing, nothing of their meaning.

Layout, little-endian: magic, header size, pairs of (key, value) as int32; the chat template; the
end ids as int32; then for each token a float32 score, a uint32 length and its bytes. Source:
distributed-llama's tokenizer-writer.py and tokenizer.cpp (v0.16)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from dllama.errors import ModelFileError

MAGIC = 0x567124
_OLD_MAGIC = 0x567123
_VERSION = 1
_MAX_KEYS = 64
_MAX_FILE_BYTES = 1 << 28  # 256 MiB; a vocabulary of 256k tokens takes 5
_TOKEN_HEAD = struct.Struct("<fI")
_KEYS = {
    0: "version",
    1: "vocab_size",
    2: "max_token_length",
    3: "bos_id",
    4: "eos_id",  # older files: one more end id
    5: "pad_id",
    6: "chat_eos_id",  # older files: one more end id
    7: "chat_template",
    8: "chat_stop",  # older files: number of bytes to skip
    9: "n_eos_tokens",
    10: "add_bos",
}


@dataclass(frozen=True, slots=True)
class TFile:
    """The contents of a `.t` file. `tokens` are raw bytes; there is one score for each."""

    tokens: list[bytes]
    scores: list[float]
    bos_id: int | None
    eos_ids: list[int]
    add_bos: bool
    chat_template: str | None = None


def read_t_file(path: str | Path) -> TFile:
    """The contents of a `.t` file, or ModelFileError saying what is wrong with it."""
    path = Path(path)
    return _Reader(path, _contents(path)).read()


def count_tokens(path: Path) -> int:
    """Returns the number of tokens of a `.t` file, as its header says. Raises ModelFileError."""
    return _Reader(path, _contents(path, 8 + 8 * _MAX_KEYS)).read_count()


def _contents(path: Path, n: int = -1) -> bytes:
    """Returns the first n bytes of a file, or all."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ModelFileError(
                f"{path} has {path.stat().st_size} bytes, too many for a tokenizer; was a model "
                f"given for it?"
            )
        with path.open("rb") as file:
            return file.read(n)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"The tokenizer file {path} cannot be read: {reason}.") from error


def write_t_file(path: str | Path, contents: TFile) -> None:
    """Writes a `.t` file that `read_t_file` and distributed-llama read."""
    template = (contents.chat_template or "").encode()
    keys = {
        "version": _VERSION,
        "vocab_size": len(contents.tokens),
        "max_token_length": max(map(len, contents.tokens), default=0),
        "add_bos": int(contents.add_bos),
        "n_eos_tokens": len(contents.eos_ids),
    }
    if contents.bos_id is not None:
        keys["bos_id"] = contents.bos_id
    if template:
        keys["chat_template"] = len(template)
    numbers = {name: number for number, name in _KEYS.items()}
    parts = [struct.pack("<ii", MAGIC, 8 + 8 * len(keys))]
    parts += [struct.pack("<ii", numbers[name], value) for name, value in keys.items()]
    parts.append(template)
    parts += [struct.pack("<i", i) for i in contents.eos_ids]
    for token, score in zip(contents.tokens, contents.scores, strict=True):
        parts += [_TOKEN_HEAD.pack(score, len(token)), token]
    Path(path).write_bytes(b"".join(parts))


class _Reader:
    """Takes one part of a file after another; every size is checked before it is used."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._at = 0

    def read(self) -> TFile:
        keys = self._read_keys()
        n = keys.get("vocab_size", 0)
        if not 0 < n <= len(self._data) // _TOKEN_HEAD.size:
            raise self._corrupt(f"it claims a vocabulary of {n} tokens, which it cannot hold")
        self._take(keys.get("chat_stop", 0), "the chat stop text")
        template = self._take(keys.get("chat_template", 0), "the chat template")
        n_ends = keys.get("n_eos_tokens", 0)
        ends = list(struct.unpack(f"<{n_ends}i", self._take(4 * n_ends, "the end tokens")))
        ends += [keys[name] for name in ("eos_id", "chat_eos_id") if keys.get(name, -1) >= 0]
        bos_id = keys.get("bos_id", -1)
        for token in (*ends, bos_id):
            if token >= n or token < -1:
                raise self._corrupt(f"it names token {token} of a vocabulary of {n}")
        tokens, scores = self._read_tokens(n)
        return TFile(
            tokens=tokens,
            scores=scores,
            bos_id=bos_id if bos_id >= 0 else None,
            eos_ids=list(dict.fromkeys(end for end in ends if end >= 0)),
            add_bos=keys.get("add_bos", 1 if bos_id >= 0 else 0) == 1,
            chat_template=template.decode("utf-8", "replace") or None,
        )

    def read_count(self) -> int:
        n = self._read_keys().get("vocab_size", 0)
        if n <= 0:
            raise self._corrupt(f"it claims a vocabulary of {n} tokens")
        return n

    def _read_keys(self) -> dict[str, int]:
        magic, header_bytes = struct.unpack("<ii", self._take(8, "the header"))
        if magic == _OLD_MAGIC:
            raise ModelFileError(
                f"{self._path} is a tokenizer of an old distributed-llama (before v0.9); convert "
                f"it again with a current converter."
            )
        if magic != MAGIC:
            raise ModelFileError(
                f"{self._path} is no .t tokenizer file: it begins with {magic & 0xFFFFFFFF:#010x}, "
                f"such a file with {MAGIC:#010x}."
            )
        n_pairs, rest = divmod(header_bytes - 8, 8)
        if rest or not 0 < n_pairs <= _MAX_KEYS:
            raise self._corrupt(f"its header claims {header_bytes} bytes")
        numbers = struct.unpack(f"<{2 * n_pairs}i", self._take(8 * n_pairs, "the header"))
        keys: dict[str, int] = {}
        for key, value in zip(numbers[::2], numbers[1::2], strict=True):
            if key not in _KEYS:
                raise ModelFileError(
                    f"{self._path} has the header key {key}, which this version does not know "
                    f"(known are 0 to {max(_KEYS)}); convert it for distributed-llama v0.16."
                )
            keys[_KEYS[key]] = value
        if keys.get("version", _VERSION) != _VERSION:
            raise ModelFileError(
                f"{self._path} is a .t file of version {keys['version']}; this program reads "
                f"version {_VERSION}."
            )
        return keys

    def _read_tokens(self, n: int) -> tuple[list[bytes], list[float]]:
        data, at, size = self._data, self._at, len(self._data)
        tokens: list[bytes] = []
        scores: list[float] = []
        for i in range(n):
            start = at + _TOKEN_HEAD.size
            if start > size:
                raise self._corrupt(f"it ends before token {i} of {n}")
            score, length = _TOKEN_HEAD.unpack_from(data, at)
            at = start + length
            if at > size or not math.isfinite(score):
                raise self._corrupt(f"token {i} of {n} claims {length} bytes and score {score}")
            tokens.append(data[start:at])
            scores.append(score)
        return tokens, scores

    def _take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes < 0 or self._at + n_bytes > len(self._data):
            raise self._corrupt(f"{what} claims {n_bytes} bytes, more than it has")
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def _corrupt(self, what: str) -> ModelFileError:
        return ModelFileError(
            f"The tokenizer file {self._path} is truncated or corrupt: {what}. "
            f"Download or convert it again."
        )
