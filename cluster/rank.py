"""The seam between a cluster and the model that a rank computes: dllama.runtime.rank.RankModel, or
a small one in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from cluster.wire.messages import KvCall, KvDone
from cluster.wire.step_checks import KvRoom, check_kv_call
from dllama.collective import Collective
from dllama.config import ModelConfig
from dllama.errors import SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.qtypes import QType
from dllama.runtime.kv_files import Tick
from dllama.sharding.units import SumUnits
from dllama.step import LogitRow, Step
from dllama.weight_source import TensorFeed
from kernels.matmul.sums import Kind


class Rank(Protocol):
    """One rank's share of a model, ready to compute."""

    @property
    def hidden(self) -> np.ndarray:
        """The last states of the rows `Step.hidden_at`, (H, dim) float32; kept on rank 0 only."""
        ...

    def forward(
        self, step: Step, embed_rows: np.ndarray, comm: Collective
    ) -> list[LogitRow] | None:
        """Computes a step; returns the rows of `step.logits_at` on rank 0, None elsewhere.

        `embed_rows` is uint8 (T, row_bytes).
        """
        ...

    def shift(self, shift: KvShift) -> None:
        """Moves the rank's keys and values of a sequence, before the next step."""
        ...

    def save_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        """Writes what is held to a file and returns its bytes, calling `tick` often. Raises
        SessionFileError."""
        ...

    def load_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        """Reads what save_kv wrote and returns the file's bytes. Raises SessionFileError."""
        ...

    def close(self) -> None: ...


class LoadRank(Protocol):
    """Makes a Rank of its tensors. `units` are those of the whole model's sums, `kind` is how they
    are made. `progress`, (64,) int64 or None, is memory whose first word grows with every kernel
    call.
    """

    def __call__(
        self,
        config: ModelConfig,
        tensors: TensorFeed,
        *,
        n_pages: int,
        max_step_tokens: int,
        n_threads: int,
        vocab_start: int,
        embed_qtype: QType,
        units: SumUnits,
        kind: Kind,
        kv_type: KvType,
        progress: np.ndarray | None,
    ) -> Rank: ...


def move_kv(rank: Rank, call: KvCall, room: KvRoom, directory: Path, tick: Tick) -> KvDone:
    """Saves or restores pages as a KvCall says; the answer holds the reason where it failed.

    Raises ProtocolError for a call that is not valid.
    """
    check_kv_call(call, room)
    do = rank.save_kv if call.is_save else rank.load_kv
    try:
        path, mark = directory / call.name, call.mark.tobytes()
        n_bytes = do(path, call.held, mark, tick)
        return KvDone(call.number, n_bytes, "")
    except SessionFileError as error:
        return KvDone(call.number, 0, str(error))
