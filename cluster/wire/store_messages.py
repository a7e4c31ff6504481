"""What ranks say to each other about the pieces of weights on their disks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from cluster.wire.codec import Codec
from cluster.wire.messages import Bytes, Digests
from dllama.array_limits import Int32s
from dllama.limits import Count

MAX_HEAD_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Seek:
    """Rank to rank: which of these pieces are on your disk?"""

    digests: Digests


@dataclass(frozen=True, slots=True)
class Holds:
    """Answers a Seek: the numbers of those that are."""

    pieces: Int32s  # (n,)


@dataclass(frozen=True, slots=True)
class Fetch:
    """Rank to rank: send this piece; `number` comes back with it."""

    number: Count
    digest: Bytes  # (32,)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answers a Fetch: the piece, or nothing where it is not there whole."""

    number: Count
    data: Bytes  # (n,)


StoreMessage = Seek | Holds | Fetch | Fetched
CODEC: Codec[StoreMessage] = Codec(get_args(StoreMessage), MAX_HEAD_BYTES)
pack = CODEC.pack
unpack = CODEC.unpack
