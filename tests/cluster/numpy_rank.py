"""A Rank in a few lines of numpy, so that tests of the cluster need no kernels: a feed-forward
network cut as a model is, with tokens that make a node misbehave."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

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
from tests.fixed_sums import fixed_sums

SLOW_TOKEN = 90  # every rank computes for half a second, and says so by its progress
HANG_TOKEN = 91  # rank 1 computes without end and without progress
FAIL_TOKEN = 92  # rank 1 raises
LOAD_FAILS_AT_PAGES = 13  # loading raises MemoryError on workers
LOAD_HANGS_AT_PAGES = 14  # loading stands still on workers
SLOW_S = 0.5


class NumpyRank:
    """Holds w1, w2 and wcls; is rank 1 where its vocabulary does not start at 0."""

    def __init__(
        self, tensors: TensorFeed, *, n_layers: int, vocab_start: int, kind: Kind,
        progress: np.ndarray | None,
    ) -> None:  # fmt: skip
        self._weights = {
            info.name: array.copy().view(np.float32).reshape(info.rows, info.cols)
            for info, array in tensors
        }
        self._n_layers, self._kind = n_layers, kind
        self._vocab_start = vocab_start
        self._progress = np.zeros(1, np.int64) if progress is None else progress
        self.hidden = np.zeros((0, 0), np.float32)
        self.is_closed = False

    def forward(
        self, step: Step, embed_rows: np.ndarray, comm: Collective
    ) -> list[LogitRow] | None:
        self._misbehave(step)
        x = embed_rows.view(np.float32).reshape(step.n_tokens, -1).copy()
        for i in range(self._n_layers):
            w1, w2 = self._weights[f"layers.{i}.w1"], self._weights[f"layers.{i}.w2"]
            partial = np.maximum(x @ w1.T, 0) @ w2.T
            addend = fixed_sums(partial) if self._kind is Kind.FIXED else partial
            comm.all_reduce(addend, out=partial)
            x += partial
            self._progress[0] += 1
        self.hidden = x[step.hidden_at]
        logits = x[step.logits_at] @ self._weights["wcls"].T
        parts = comm.gather(np.ascontiguousarray(logits).tobytes())
        if parts is None:
            return None
        n_rows = len(step.logits_at)
        rows = [
            np.frombuffer(p, np.float32).reshape(n_rows, len(p) // (4 * max(n_rows, 1)))
            for p in parts
        ]
        whole = np.concatenate(rows, axis=1)
        return [LogitRow(None, row, float(np.logaddexp.reduce(row))) for row in whole]

    def shift(self, shift: KvShift) -> None:
        """Nothing is kept of earlier tokens."""

    def save_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        """A file of the page numbers, so that tests see what was asked for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.write_bytes(mark + bytes(held.pages.tolist()))

    def load_kv(self, path: Path, held: KvHeld, mark: bytes, tick: Tick) -> int:
        if not path.exists() or path.read_bytes()[: len(mark)] != mark:
            raise SessionFileError(f"{path} is not there, or another's")
        return path.stat().st_size

    def close(self) -> None:
        self.is_closed = True

    def _misbehave(self, step: Step) -> None:
        is_worker = self._vocab_start > 0
        if SLOW_TOKEN in step.tokens:
            for _ in range(10):
                time.sleep(SLOW_S / 10)
                self._progress[0] += 1
        if HANG_TOKEN in step.tokens and is_worker:
            time.sleep(60)
        if FAIL_TOKEN in step.tokens and is_worker:
            raise RuntimeError("the kernel said no")


def load_numpy_rank(
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
    kv_type: KvType = KvType.F16,
    progress: np.ndarray | None,
) -> NumpyRank:
    """A LoadRank."""
    assert embed_qtype is QType.F32 and max_step_tokens > 0 and n_threads > 0
    if n_pages == LOAD_FAILS_AT_PAGES and vocab_start > 0:
        raise MemoryError("no room for the KV pages")
    if n_pages == LOAD_HANGS_AT_PAGES and vocab_start > 0:
        next(iter(tensors))
        time.sleep(300)
    return NumpyRank(
        tensors, n_layers=config.n_layers, vocab_start=vocab_start, kind=kind, progress=progress
    )
