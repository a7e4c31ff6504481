"""The seam between the engine and the computation of a step."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dllama.config import ModelConfig
from dllama.kv import KvHeld, KvShift
from dllama.nodes import NodesCall, NodesReply
from dllama.step import LogitRow, Step
from dllama.windows import Windows


class Runner(Protocol):
    """Computes steps; one machine (LocalRunner) or a cluster (cluster.ClusterRunner).

    Neither keeps anything of a request but the KV pages that steps name.
    """

    @property
    def config(self) -> ModelConfig: ...

    @property
    def n_pages(self) -> int:
        """The number of KV pages; steps name pages 0 .. n_pages - 1."""
        ...

    @property
    def n_window_pages(self) -> int:
        """The number of pages of layers with a window; 0 where there are none."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one token reads, over all ranks."""
        ...

    def counters(self) -> dict[str, int]:
        """Nanoseconds that rank 0 has spent in steps so far: `compute_ns`, `wait_ns` (for ranks
        that compute longer) and `network_ns`."""
        ...

    def run(self, step: Step) -> list[LogitRow]:
        """Returns the logits for each of `step.logits_at`. Raises PeerLost when a node is lost; the
        runner then needs `recover()` before the next step, and all KV is lost."""
        ...

    @property
    def hidden(self) -> np.ndarray:
        """Returns the states (H, dim) float32 after the last norm of the rows `hidden_at` of the
        step that ran last; read it before the next."""
        ...

    def shift(self, shift: KvShift) -> None:
        """Moves a sequence's keys and values, on every rank. Raises PeerLost, as `run` does."""
        ...

    @property
    def fingerprint(self) -> bytes:
        """Returns 32 bytes that differ between models, and between cuts of one model over ranks.
        Saved keys and values can be used only where they are equal."""
        ...

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        """Writes what is held to a file called after `name` on every rank; returns the bytes of all
        files. The same `stamp`, 16 bytes, is needed to read them. Raises SessionFileError,
        PeerLost."""
        ...

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        """Reads what `save_kv` wrote, as much of everything, to where it is held now. Raises
        SessionFileError, PeerLost."""
        ...

    def idle(self) -> None:
        """Watches over peers; called between steps while there is no work. Raises PeerLost."""
        ...

    @property
    def pending_change(self) -> str | None:
        """Returns a sentence where the nodes have changed (one came back, joined or drains) and the
        runner would like to come up anew by `recover()`, between two steps; else None."""
        ...

    def recover(self) -> None:
        """Brings the cluster back after PeerLost, or raises PeerLost again; call until it works.
        All KV is lost. It may come back with other nodes and another `n_pages`, which should have
        room for a whole context: a sequence that does not fit any more ends with an error."""
        ...

    def nodes(self, call: NodesCall) -> NodesReply | None:
        """Answers a call about the nodes, also while the cluster is down; does not wait. None
        where the reply is among `node_replies` later."""
        ...

    def node_replies(self) -> list[NodesReply]:
        """Returns the replies to calls that have come about since the last time."""
        ...

    def stats(self) -> list[dict[str, object]]:
        """One row per rank, as in `workers` of GET /stats."""
        ...

    def close(self) -> None: ...


def windows_of(runner: Runner) -> Windows:
    """Returns what a runner's layers with a window see, and the pages that they have."""
    return Windows(runner.config.window, runner.n_window_pages)
