"""Messages of a session's ranks that have come and are not due yet, filed by what they are.

Nothing is kept that no rank of ours would send, so that none of them fills another's memory. Knows
no sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from dllama.errors import ProtocolError
from kernels.wire.places import N_EARLY, SEQUENCE

MAX_AHEAD = 64  # collectives a peer may be ahead: gathers do not wait, all else does
MAX_PART_BYTES = 256 << 20  # a piece for rank 0: whole rows of logits
MAX_BLOCK_BYTES = 4 << 20  # of partials and sums, which are cut: 1 MiB as float32
MAX_BLOCKS = 1 << 12
MAX_OFFER_BYTES = 128
MAX_MEETING_BLOCKS = 2  # an offer of connections, and whether they stand
MAX_EARLY_BYTES = 512 << 20  # of one rank: a few payloads


class Phase(IntEnum):
    HELLO = 0
    PARTIAL = 1  # a rank's own addend
    ROWS = 2  # rows that their owner has finished
    PART = 3  # a piece for rank 0
    MEETING = 4  # how two ranks come to connections of their own


_LIMITS = {  # the longest payload, and how many blocks
    int(Phase.HELLO): (MAX_OFFER_BYTES, 1),
    int(Phase.PARTIAL): (MAX_BLOCK_BYTES, MAX_BLOCKS),
    int(Phase.ROWS): (MAX_BLOCK_BYTES, MAX_BLOCKS),
    int(Phase.PART): (MAX_PART_BYTES, 1),
    int(Phase.MEETING): (MAX_OFFER_BYTES, MAX_MEETING_BLOCKS),
}


class Key(NamedTuple):
    """The key of a message that a receiver waits for."""

    sequence: int
    phase: int  # a Phase
    block: int
    rank: int


class Arrived(NamedTuple):
    payload: memoryview
    compute_ns: int  # how long the sender computed since the collective before


class Filing:
    """The messages for one rank. `sequence` is the collective it is in, `names` are those of the
    other ranks in errors; until they are known, any other rank may be one.

    `counters` int64 are those of kernels/wire/places.py: compiled code counts there too."""

    def __init__(self, rank: int, counters: np.ndarray) -> None:
        self._counters = counters
        self.names: Sequence[str] = ()
        self._rank = rank
        self._early: dict[Key, Arrived] = {}
        self._n_bytes: dict[int, int] = {}  # of `_early`, by rank
        self._under_way: list[int] = []  # collectives before `sequence` that are not at their end
        self._taken: set[Key] = set()  # of collectives from `oldest` on: no rank sends them again
        self._taken_in = 0

    @property
    def sequence(self) -> int:
        return int(self._counters[SEQUENCE])

    @sequence.setter
    def sequence(self, sequence: int) -> None:
        self._counters[SEQUENCE] = sequence

    @property
    def oldest(self) -> int:
        """The first collective that is not at its end."""
        return self._under_way[0] if self._under_way else self.sequence

    def begin(self) -> None:
        """Notes that the collective this rank is in goes on while others begin."""
        self._under_way.append(self.sequence)

    def end(self, sequence: int) -> None:
        """Notes that a collective that went on has ended."""
        self._under_way.remove(sequence)

    def __contains__(self, key: Key) -> bool:
        return key in self._early

    def keep(self, key: Key, arrived: Arrived) -> None:
        """Files a message. Raises ProtocolError, with the sender's name, for one that no rank of
        ours would send now."""
        n_bytes = self._n_bytes.get(key.rank, 0) + len(arrived.payload)
        self._check(key, len(arrived.payload), n_bytes)
        self._n_bytes[key.rank] = n_bytes
        self._early[key] = arrived
        self._counters[N_EARLY] = len(self._early)

    def take(self, key: Key) -> Arrived:
        """Returns a message that is there, once."""
        if key.sequence != self._taken_in:
            self._taken_in, oldest = key.sequence, self.oldest
            self._taken = {taken for taken in self._taken if taken.sequence >= oldest}
        self._taken.add(key)
        arrived = self._early.pop(key)
        self._counters[N_EARLY] = len(self._early)
        self._n_bytes[key.rank] -= len(arrived.payload)
        return arrived

    def _check(self, key: Key, n_bytes: int, n_early_bytes: int) -> None:
        sequence, phase, block, rank = key
        is_peer = rank != self._rank and (not self.names or rank < len(self.names))
        if not is_peer or not self.oldest <= sequence <= self.sequence + MAX_AHEAD:
            raise ProtocolError(
                f"rank {self._rank} is at collective {self.sequence} and was sent one numbered "
                f"{sequence} by rank {rank}; install the same dllama on every node"
            )
        max_bytes, max_blocks = _LIMITS.get(phase, (-1, 0))
        is_sound = n_bytes <= max_bytes and block < max_blocks
        is_sound = is_sound and (sequence == 0) == (phase in (Phase.HELLO, Phase.MEETING))
        if not is_sound or (phase == Phase.PART and self._rank != 0):
            raise ProtocolError(
                f"{self._named(rank)} sent {n_bytes} bytes as block {block} of phase {phase} in "
                f"collective {sequence}, which no rank does; install the same dllama on every node"
            )
        if key in self._early or key in self._taken:
            raise ProtocolError(
                f"{self._named(rank)} sent block {block} of collective {sequence} twice; install "
                "the same dllama on every node"
            )
        if n_early_bytes > MAX_EARLY_BYTES:
            raise ProtocolError(
                f"{self._named(rank)} sends more than rank {self._rank} can keep before it is due"
            )

    def _named(self, rank: int) -> str:
        return f"rank {rank} at {self.names[rank]}" if self.names else f"rank {rank}"
