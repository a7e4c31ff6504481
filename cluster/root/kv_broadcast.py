"""KV operations of a session, done on all ranks between two steps: shift, save, restore."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from cluster.rank import Rank, move_kv
from cluster.root.worker_links import WorkerLinks
from cluster.wire.messages import KvCall, KvDone, pack
from cluster.wire.step_checks import KvRoom
from dllama.errors import SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.runtime.kv_files import file_name, mark_of, model_fingerprint
from dllama.sharding.plan import Shard
from dllama.weight_source import WeightSource

KV_TIMEOUT_S = 120.0  # for a rank to write or read all pages of a session


class KvBroadcast:
    """The KV operations of one session; `rank` is the root's own, rank 0 of `shards`."""

    def __init__(
        self,
        links: WorkerLinks,
        epoch: int,
        rank: Rank,
        shards: Sequence[Shard],
        source: WeightSource,
        room: KvRoom,
        directory: Path | None,
    ) -> None:
        self._links, self._epoch, self._rank = links, epoch, rank
        self._shards, self._source = shards, source
        self._room, self._directory = room, directory

    @cached_property
    def fingerprint(self) -> bytes:
        """The fingerprint of the model and its cut over these ranks."""
        return model_fingerprint(self._source, repr(self._shards))

    def shift(self, shift: KvShift) -> None:
        """Moves keys and values on all ranks. A rank that fails is noticed at the next step."""
        with self._links.explained():
            frames = pack(shift, self._epoch)
            for link in self._links:
                link.send_session(frames)
            self._rank.shift(shift)

    def move(self, is_save: bool, name: str, held: KvHeld, stamp: bytes) -> int:
        """Writes or reads what is held of a sequence, on all ranks, and returns the bytes of all
        files.

        Raises PeerLost, and SessionFileError once every rank has answered.
        """
        number = secrets.randbits(31)
        calls = [
            KvCall(
                number,
                is_save,
                file_name(name, self.fingerprint, shard.rank),
                held,
                np.frombuffer(mark_of(self.fingerprint, stamp, shard.rank), np.uint8),
            )
            for shard in self._shards
        ]
        for link in self._links:
            link.tell_session(calls[link.rank])
        done = [self._own(calls[0])]
        slow = f"did not save or restore keys and values within {KV_TIMEOUT_S:g} s"
        done += self._links.await_all(KvDone, KV_TIMEOUT_S, slow)
        errors = [answer.error for answer in done if answer.error]
        if errors:
            raise SessionFileError("; ".join(errors))
        return sum(answer.n_bytes for answer in done)

    def _own(self, call: KvCall) -> KvDone:
        if self._directory is None:
            return KvDone(call.number, 0, "the root was started without a directory for sessions")
        return move_kv(self._rank, call, self._room, self._directory, self._links.watch)
