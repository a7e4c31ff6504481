"""What nodes say to each other: one frozen dataclass a kind, and the table of kinds.

A field that is an array travels as a frame of its own, all else in the head. Receivers check
every field against its annotation; a field too many or too few is a ProtocolError.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, get_args

import numpy as np

from cluster.wire.codec import Codec
from cluster.wire.measure_messages import Measure, Measured
from dllama.array_limits import Array, Int32s
from dllama.config import ModelConfig
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.limits import Count, MaxLength, Range
from dllama.qtypes import QType
from dllama.runtime.meter import RankFigures
from dllama.sharding.pieces import Tiling
from dllama.sharding.units import SumUnits
from dllama.step import Step
from dllama.weight_source import TensorInfo

MAX_HEAD_BYTES = 4 << 20  # the longest head is the list of a model's tensors: 50 bytes each

Bytes = Annotated[np.ndarray, Array(np.uint8)]
Size = Annotated[int, Range(1, (1 << 31) - 1)]  # of what memory is taken for
Digests = Annotated[np.ndarray, Array(np.uint8, ndim=2)]  # (n, 32): SHA-256
Port = Annotated[int, Range(1, (1 << 16) - 1)]
Name = Annotated[str, MaxLength(256)]
Nonce = Annotated[str, MaxLength(64)]
PublicKey = Annotated[str, MaxLength(40)]  # Z85; "" where there is none
Feature = Annotated[str, MaxLength(64)]
Features = Annotated[list[Feature], MaxLength(64)]


# ---- root and worker daemon, before anything is encrypted
@dataclass(frozen=True, slots=True)
class Introduction:
    """Root to daemon, on the port that everybody knows: who it is and what it wants.

    `key` is its public key, "" where it encrypts nothing; `nonce` is another one each time.
    """

    release: Name
    features: Features
    key: PublicKey
    nonce: Nonce
    encrypts: bool
    has_cluster_key: bool


@dataclass(frozen=True, slots=True)
class Introduced:
    """Daemon to root: the same of the worker. `answers` is the nonce of the root's Introduction,
    `port` is where it listens for encrypted links (0: nowhere), `proof` is of the cluster key."""

    release: Name
    features: Features
    key: PublicKey
    nonce: Nonce
    answers: Nonce
    encrypts: bool
    has_to_encrypt: bool  # as it sees the root: not on this machine
    port: Annotated[int, Range(0, (1 << 16) - 1)]
    proof: Nonce


@dataclass(frozen=True, slots=True)
class Proof:
    """Root to daemon: its proof of the cluster key, "" without one. `answers` is the nonce of the
    worker's Introduced."""

    answers: Nonce
    proof: Nonce


@dataclass(frozen=True, slots=True)
class Admitted:
    """Daemon to root: its key opens the encrypted port now."""


# ---- root and worker daemon
@dataclass(frozen=True, slots=True)
class Hello:
    """Root to daemon: the first message, with the release of the root."""

    release: Name


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon to root: what this node is. `daemon` is another one for each daemon, `machine` is
    equal for nodes that share memory. `memory_available` is the node's own, which in a container
    may be less than `machine_available`, what all nodes of one machine have together."""

    release: Name
    daemon: Name
    host: Name
    machine: Name
    cpu: Name
    isa: Name  # the instructions its kernels are made of
    threads: Size
    memory_total: Count
    memory_available: Count
    machine_available: Count
    nonce: Nonce = ""  # a session is opened only by who quotes it, and so has heard this


@dataclass(frozen=True, slots=True)
class Refused:
    """Daemon to root: the reason why a request was not done."""

    reason: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Root to daemon: start a process for a rank. Earlier sessions of the same `root` end.

    `key` is the root's public key of this session; "" where its links are plain.
    """

    root: Name
    rank: Count
    world_size: Count
    sync_type: Name
    needed_bytes: Count
    nonce: Nonce = ""  # of the daemon's Welcome
    key: PublicKey = ""


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Root to daemon: end the session of this epoch."""


@dataclass(frozen=True, slots=True)
class SessionReady:
    """Session process to daemon to root: the ports it listens on, and its public key; "" where
    its links are plain."""

    pid: Size
    control_port: Port
    mesh_port: Port
    store_port: Port  # for other ranks that want pieces of weights
    key: PublicKey = ""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Daemon to root: the process is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Draining:
    """Daemon to root: this worker is to end. Its session goes on for a while, so that the root can
    plan another one without it."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Daemon to root, twice a second: the process lives, and its progress."""

    progress: Count
    rss_bytes: Count


# ---- root and session process
@dataclass(frozen=True, slots=True)
class Join:
    """Root to rank: meet the others. `peers` are endpoints by rank, as this rank reaches them;
    `keys` are their public keys, none where the links are plain."""

    peers: list[str]
    stores: list[str]  # where each rank is asked for pieces; that of rank 0 is not used
    keys: list[PublicKey] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Joined:
    """Rank to root: every other rank was heard."""


@dataclass(frozen=True, slots=True)
class Load:
    """Root to rank: the model, its tensors in feed order, and the pieces that hold them."""

    config: ModelConfig
    manifest: list[TensorInfo]
    tilings: list[Tiling]
    digests: Digests
    n_pages: Size
    kv_type: KvType
    max_step_tokens: Size
    vocab_start: Annotated[int, Range(0, (1 << 31) - 1)]
    units: SumUnits
    embed_qtype: QType


@dataclass(frozen=True, slots=True)
class Want:
    """Rank to root: the pieces to send next, in this order; once after a Load or a Spares."""

    pieces: Int32s  # (n,)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Root to rank: the bytes of a piece from `offset` on."""

    piece: Count
    offset: Count
    data: Bytes  # (n,)


@dataclass(frozen=True, slots=True)
class Credit:
    """Rank to root: the number of chunks taken in, and of chunks that may follow."""

    chunks: Count


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rank to root: ready for steps; the bytes of weights found on its disk, fetched from other
    workers and received, of which `n_wrong` pieces were not what their digests said."""

    found_bytes: Count = 0
    fetched_bytes: Count = 0
    received_bytes: Count = 0
    n_wrong: Count = 0


@dataclass(frozen=True, slots=True)
class Spares:
    """Root to rank, between steps: pieces that it may need later, and their bytes. The answer is a
    Want of those that it does not have and has room for."""

    digests: Digests
    sizes: Int32s  # (n,)


@dataclass(frozen=True, slots=True)
class StepCall:
    """Root to ranks: a step, and the raw embedding rows of its tokens. A step that only warms the
    ranks up is in nobody's figures."""

    step: Step
    embed_rows: Annotated[np.ndarray, Array(np.uint8, ndim=2)]  # (T, row_bytes)
    is_warm_up: bool = False


@dataclass(frozen=True, slots=True)
class KvCall:
    """Root to rank: write what is held of a sequence to a file of this name, or read it."""

    number: Count
    is_save: bool
    name: Annotated[str, MaxLength(200)]
    held: KvHeld
    mark: Bytes  # (32,): identifies the model, the cut and the save


@dataclass(frozen=True, slots=True)
class KvDone:
    """Rank to root: the file's bytes, or why there is none."""

    number: Count
    n_bytes: Count
    error: str


@dataclass(frozen=True, slots=True)
class StatsCall:
    """Root to rank: asks for RankStats with the same number."""

    number: Count


@dataclass(frozen=True, slots=True)
class RankStats:
    """Rank to root: its figures, for a StatsCall of the same number."""

    number: Count
    figures: RankFigures


@dataclass(frozen=True, slots=True)
class Failed:
    """Session process to root and daemon: why it ends. `lost_rank` is the rank it lost, or -1; 0
    where it never reached the root's."""

    reason: str
    lost_rank: Annotated[int, Range(-1, (1 << 16) - 1)]


Message = (
    Introduction | Introduced | Proof | Admitted
    | Hello | Welcome | Refused | OpenSession | CloseSession | SessionReady | SessionEnded
    | Draining | Heartbeat | Join | Joined | Measure | Measured | Load | Want | Chunk | Credit
    | Loaded | Spares | StepCall | KvShift | KvCall | KvDone | StatsCall | RankStats | Failed
)  # fmt: skip
CODEC: Codec[Message] = Codec(get_args(Message), MAX_HEAD_BYTES)
pack = CODEC.pack
unpack = CODEC.unpack
