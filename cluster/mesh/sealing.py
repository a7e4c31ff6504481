"""The keys that both ends of a connection between two ranks seal and open their frames with
(kernels/wire/frames.py)."""

from __future__ import annotations

import os

import numpy as np

from cluster.mesh.libraries import Sealing
from kernels.addresses import address_of
from kernels.wire import frames

_WHY = {
    frames.CLOSED: "it was closed",
    frames.FORGED: "what came on it was changed on the way",
    frames.TOO_LONG: "what came on it is no message of a rank",
    frames.NOT_SEALED: "libsodium could not seal a message",
}


class Keys:
    """A cipher, and a key of 32 bytes for each direction."""

    def __init__(self, sealing: Sealing, to_seal: bytes, to_open: bytes) -> None:
        self.sealing, self.to_seal, self.to_open = sealing, to_seal, to_open


class Secrets:
    """The keys and nonces of one connection, in memory that is cleared at the end."""

    def __init__(self, words: np.ndarray, keys: Keys | None) -> None:
        """Writes where they are to the words of a connection; plain where there are no keys."""
        self._arrays: list[np.ndarray] = []
        if keys is None:
            return
        sealing = keys.sealing
        nonces = [np.zeros(sealing.cipher.nonce_bytes, np.uint8) for _ in range(2)]
        secrets = [np.frombuffer(bytearray(key), np.uint8) for key in (keys.to_seal, keys.to_open)]
        self._arrays = [*secrets, *nonces]
        words[frames.SEAL], words[frames.OPEN] = sealing.seal, sealing.open
        words[frames.TAG_BYTES] = sealing.cipher.tag_bytes
        places = (frames.SEAL_KEY, frames.OPEN_KEY, frames.SEAL_NONCE, frames.OPEN_NONCE)
        for place, array in zip(places, self._arrays, strict=True):
            words[place] = address_of(array)

    def clear(self) -> None:
        for each in self._arrays:
            each[:] = 0


def why_broken(words: np.ndarray) -> str:
    """Returns why a connection is of no use any more; "" while it is."""
    number = int(words[frames.BROKEN])
    return _WHY.get(number) or (os.strerror(number) if number else "")
