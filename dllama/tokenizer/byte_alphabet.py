"""GPT-2's alphabet: every byte as one printable character, so that BPE pieces are texts.

Source: `bytes_to_unicode` of the GPT-2 release: bytes that Latin-1 prints stand for themselves,
the others, in order, for U+0100 and up."""

from __future__ import annotations

_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = tuple(b for b in range(256) if b not in set(_PRINTED))

BYTE_ORDER = (*_PRINTED, *_HIDDEN)  # the order in which GPT-2 numbers the 256 bytes
_CHAR_OF = {b: chr(b) for b in _PRINTED} | {b: chr(0x100 + i) for i, b in enumerate(_HIDDEN)}
_BYTE_OF = {char: bytes([b]) for b, char in _CHAR_OF.items()}
_TABLE = {b: char for b, char in _CHAR_OF.items() if chr(b) != char}


def to_alphabet(raw: bytes) -> str:
    """Bytes written in the alphabet, one character each."""
    return raw.decode("latin-1").translate(_TABLE)


def from_alphabet(piece: str) -> bytes:
    """The bytes a piece stands for; characters outside the alphabet give their UTF-8 bytes."""
    return b"".join(_BYTE_OF.get(char) or char.encode("utf-8", "replace") for char in piece)
