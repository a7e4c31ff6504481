"""The C libraries that pyzmq brings along: libzmq, and the libsodium that it encrypts with.
Compiled code calls their functions by their addresses."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from zmq.backend import cython


class Cipher(NamedTuple):
    """An authenticated cipher of libsodium, and the bytes of its key, its nonce and its tag.

    Sources: draft-irtf-cfrg-aegis-aead, RFC 8439.
    """

    name: str
    key_bytes: int
    nonce_bytes: int
    tag_bytes: int


AEGIS = Cipher("aegis256", 32, 32, 32)  # four times as fast, where processors have AES
CHACHA = Cipher("chacha20poly1305_ietf", 32, 12, 16)
CIPHERS = (CHACHA, AEGIS)
"""Ciphers by the bit that offers name them with, the better one later."""


class Sealing(NamedTuple):
    """The addresses of a cipher's functions."""

    cipher: Cipher
    seal: int
    open: int


@cache
def load_library() -> ctypes.CDLL | None:
    """Returns the libzmq that pyzmq uses, by which its libsodium is found too; None where the clock
    of compiled code is not Python's, or there is no such file."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(str(cython._zmq.__file__))
    except (AttributeError, OSError):
        return None


def address_of_function(library: ctypes.CDLL, name: str) -> int:
    """Returns the address of a C function. Raises AttributeError."""
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def has_functions(library: ctypes.CDLL, names: Iterable[str]) -> bool:
    """Returns whether a library has all of these functions."""
    return all(hasattr(library, name) for name in names)


@cache
def sealings() -> tuple[Sealing | None, ...]:
    """Returns the ciphers that this machine should use, in the order of CIPHERS; None for those
    that libsodium does not have, or this processor is slow at."""
    return tuple(_sealing(cipher) for cipher in CIPHERS)


def _sealing(cipher: Cipher) -> Sealing | None:
    library = load_library()
    names = [f"crypto_aead_{cipher.name}_{what}" for what in ("encrypt", "decrypt")]
    sizes_of = [f"crypto_aead_{cipher.name}_{which}bytes" for which in ("key", "npub", "a")]
    needed = (*names, *sizes_of, "sodium_init", "crypto_aead_aes256gcm_is_available")
    if library is None or not has_functions(library, needed) or library.sodium_init() < 0:
        return None
    sizes = [int(getattr(library, name)()) for name in sizes_of]
    if sizes != [cipher.key_bytes, cipher.nonce_bytes, cipher.tag_bytes]:
        return None
    if cipher is AEGIS and not library.crypto_aead_aes256gcm_is_available():  # in hardware
        return None
    return Sealing(cipher, *(address_of_function(library, name) for name in names))
