"""What nodes say to each other: one frozen dataclass a kind, and the table of kinds.

A field that is an array travels as a frame of its own, all else in the head. Receivers check
every field against its annotation; a field too many or too few is a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from cluster.wire.frames import PROTOCOL_VERSION, Frame, decode, encode
from cluster.wire.message_fields import array_fields, build, field_types, plain
from dllama import __version__
from dllama.config import ModelConfig
from dllama.errors import ProtocolError


# ---- root and worker daemon
@dataclass(frozen=True, slots=True)
class Hello:
    """Root to daemon: who asks."""

    release: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """Daemon to root: what this node is. `machine` is equal for nodes that share memory."""

    release: str
    host: str
    machine: str
    cpu: str
    isa: str  # the instructions its kernels are made of
    threads: int
    memory_total: int
    memory_available: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Daemon to root: not done, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Root to daemon: start a process for a rank. Earlier sessions of the same `root` end."""

    root: str
    rank: int
    world_size: int
    sync_type: str
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class CloseSession:
    """Root to daemon: end the session of this epoch."""


@dataclass(frozen=True, slots=True)
class SessionReady:
    """Session process to daemon to root: the ports it listens on."""

    pid: int
    control_port: int
    mesh_port: int


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Daemon to root: the process is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Daemon to root, twice a second: the process is there and has come this far."""

    progress: int
    rss_bytes: int


# ---- root and session process
@dataclass(frozen=True, slots=True)
class Join:
    """Root to rank: meet the others. `peers` are endpoints by rank, as this rank reaches them."""

    peers: list[str]


@dataclass(frozen=True, slots=True)
class Joined:
    """Rank to root: every other rank was heard."""


@dataclass(frozen=True, slots=True)
class TensorLine:
    """One tensor of a manifest; `qtype` is its number in GGUF, `first_own_col` the first of its
    columns that are this rank's."""

    name: str
    qtype: int
    rows: int
    cols: int
    first_own_col: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """Root to rank: the model, and the tensors that will follow in this order."""

    config: ModelConfig
    manifest: list[TensorLine]
    n_pages: int
    kv_type: str
    max_step_tokens: int
    vocab_start: int
    embed_qtype: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Root to rank: the bytes of manifest[tensor] from `offset` on."""

    tensor: int
    offset: int
    data: np.ndarray  # (n,) uint8


@dataclass(frozen=True, slots=True)
class Credit:
    """Rank to root: so many chunks were taken in; as many more may be sent."""

    chunks: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rank to root: ready for steps."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """Root to ranks: a step, and the raw embedding rows of its tokens."""

    tokens: np.ndarray  # (T,) int32
    positions: np.ndarray  # (T,) int32
    starts: np.ndarray  # (S + 1,) int32
    pages: np.ndarray  # (S, max_pages) int32
    logits_at: np.ndarray  # (R,) int32
    candidates: np.ndarray  # (R,) int32
    embed_rows: np.ndarray  # (T, row_bytes) uint8


@dataclass(frozen=True, slots=True)
class ShiftCall:
    """Root to ranks: a KvShift, to be done before the next step."""

    n_tokens: int
    n_keep: int
    n_drop: int
    from_pages: np.ndarray  # (pages of n_tokens,) int32
    to_pages: np.ndarray  # (pages of n_tokens - n_drop,) int32


@dataclass(frozen=True, slots=True)
class KvCall:
    """Root to rank: write pages to a file of this name, or read them from it."""

    number: int
    is_save: bool
    name: str
    pages: np.ndarray  # (P,) int32
    mark: np.ndarray  # (32,) uint8: whose pages these are


@dataclass(frozen=True, slots=True)
class KvDone:
    """Rank to root: the file's bytes, or why there is none."""

    number: int
    n_bytes: int
    error: str


@dataclass(frozen=True, slots=True)
class StatsCall:
    """Root to rank: asks for RankStats with the same number."""

    number: int


@dataclass(frozen=True, slots=True)
class RankStats:
    """Rank to root: sums over the last steps that only decoded, and two over the last that read
    prompts (see dllama.runtime.meter)."""

    number: int
    n_steps: int
    n_tokens: int
    elapsed_ns: int
    compute_ns: int
    wait_ns: int
    network_ns: int
    sent_bytes: int
    received_bytes: int
    weights_bytes: int
    prefill_tokens: int
    prefill_ns: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Session process to root and daemon: why it ends. `lost_rank` is -1, or who it lost."""

    reason: str
    lost_rank: int


Message = (
    Hello | Welcome | Refused | OpenSession | CloseSession | SessionReady | SessionEnded
    | Heartbeat | Join | Joined | Load | Chunk | Credit | Loaded | StepCall
    | ShiftCall | KvCall | KvDone | StatsCall | RankStats | Failed
)  # fmt: skip
KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Message)}


def pack(message: Message, epoch: int = 0) -> list[Frame]:
    """The frames of a message."""
    kind: Any = type(message)
    arrays = array_fields(kind)
    values = {n: plain(getattr(message, n)) for n in field_types(kind) if n not in arrays}
    return encode(kind.__name__, epoch, values, [getattr(message, n) for n in arrays])


def unpack(frames: Sequence[Frame]) -> tuple[int, Message]:
    """Epoch and message. Raises ProtocolError for whatever is no message of this version."""
    head, arrays = decode(frames)
    kind = KINDS.get(head.kind)
    if kind is None:
        raise ProtocolError(
            f"a message of unknown kind {head.kind!r:.40}; this is cluster protocol "
            f"{PROTOCOL_VERSION} of dllama {__version__}"
        )
    names = array_fields(kind)
    if len(names) != len(arrays):
        raise ProtocolError(f"a {head.kind} message has {len(names)} arrays, not {len(arrays)}")
    values = dict(head.fields)
    if set(values) & set(names):
        raise ProtocolError(f"a {head.kind} message has an array inside its head")
    values.update(zip(names, arrays, strict=True))
    built: Message = build(kind, values, head.kind)
    return head.epoch, built
