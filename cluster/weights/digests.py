"""The SHA-256 of a model's pieces, computed once for a state of its files and kept on disk.

The digests are what workers know pieces by. They are computed by threads of their own, which do not
hold the GIL while they read and hash.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dllama.sharding.pieces import Piece, TiledCut, read_piece, whole_model
from dllama.weight_source import WeightSource
from kernels.whole_files import write_whole

log = logging.getLogger(__name__)

DIGEST_BYTES = 32
MAGIC = b"dllama digests 1\n"
MAX_THREADS = 4  # a disk gives no more


class PieceDigests:
    """The digests of all pieces of a model file, in one table.

    `folder` keeps tables between two starts; None: they are computed at each. `begin` starts the
    computing, `of` waits for it, `close` gives it up.
    """

    def __init__(self, source: WeightSource, folder: Path | None) -> None:
        self._source = source
        self._tiled = whole_model(source.config, source.tensors)
        pieces = [piece for tiled in self._tiled for piece in tiled.pieces()]
        self._rows = {piece: row for row, piece in enumerate(pieces)}
        self._table: np.ndarray = np.zeros((len(pieces), DIGEST_BYTES), np.uint8)
        self._key = self._state_key()
        self._file = folder / f"{_file_name(source.stamp)}" if folder and source.stamp else None
        self._left: Iterator[TiledCut] = iter(())
        self._lock = threading.Lock()  # of `_left`
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        self._is_known = False
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Reads the table, or starts to compute it. Does nothing where that is done already."""
        if self._is_known or self._threads:
            return
        kept = self._kept()
        if kept is not None:
            self._table, self._is_known = kept, True
            return
        self._error, self._is_closed = None, False
        self._left = iter(self._tiled)
        n_threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._threads = [
            threading.Thread(target=self._hash_tensors, name="digests", daemon=True)
            for _ in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()

    def of(self, pieces: Iterable[Piece]) -> np.ndarray:
        """Returns the digests of pieces, uint8 (n, DIGEST_BYTES), once all are known. Raises
        ModelFileError where the file is damaged."""
        self.begin()
        if not self._is_known:
            for thread in self._threads:
                thread.join()
            self._threads = []
            if self._error is not None:
                raise self._error
            self._is_known = True
            self._keep()
        digests: np.ndarray = self._table[[self._rows[piece] for piece in pieces]]
        return digests

    def forget(self) -> None:
        """Drops the table, which was found not to be that of the file."""
        self._is_known = False
        if self._file is not None:
            self._file.unlink(missing_ok=True)

    def close(self) -> None:
        self._is_closed = True
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _hash_tensors(self) -> None:
        """Hashes one tensor after the other, as long as there are any."""
        try:
            while not self._is_closed:
                with self._lock:
                    tiled = next(self._left, None)
                if tiled is None:
                    return
                self._hash(tiled)
        except BaseException as error:  # raised again where somebody waits
            self._error = error

    def _hash(self, tiled: TiledCut) -> None:
        for sized in tiled.sized():
            if self._is_closed:
                return
            raw = np.ascontiguousarray(read_piece(self._source, sized))
            digest = hashlib.sha256(raw.reshape(-1).data).digest()
            self._table[self._rows[sized.piece]] = np.frombuffer(digest, np.uint8)
        self._source.release(tiled.cut.source_name)

    # ---- on disk
    def _state_key(self) -> bytes:
        """Differs between states of the files, and between ways to make pieces of them."""
        tilings = [(tiled.cut.source_name, tiled.cut.info, tiled.tiling) for tiled in self._tiled]
        return hashlib.sha256(repr((self._source.stamp, tilings)).encode()).digest()

    def _kept(self) -> np.ndarray | None:
        if self._file is None:
            return None
        try:
            data = self._file.read_bytes()
        except OSError:
            return None
        head = len(MAGIC) + DIGEST_BYTES
        body = data[head:]
        is_whole = data.startswith(MAGIC) and len(body) == DIGEST_BYTES + self._table.size
        if not is_whole or hashlib.sha256(body).digest() != data[len(MAGIC) : head]:
            log.warning("%s is damaged or of another release; the model is hashed anew", self._file)
            return None
        if body[:DIGEST_BYTES] != self._key:
            return None  # the model file has changed
        return np.frombuffer(body[DIGEST_BYTES:], np.uint8).reshape(self._table.shape)

    def _keep(self) -> None:
        if self._file is None:
            return
        body = self._key + self._table.tobytes()
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, MAGIC + hashlib.sha256(body).digest() + body)
        except OSError as error:
            log.warning(
                "the digests of the model are not kept (%s: %s); the next start computes them "
                "anew, which takes as long as reading the file",
                error.strerror or error,
                self._file.parent,
            )


def _file_name(stamp: str) -> str:
    """The same for all states of a model's files: a table takes the place of an older one."""
    paths = [line.rpartition(" (")[0] for line in stamp.split("\n")]
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:32]
