"""A cluster of one: the whole model on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dllama.collective import SoloCollective
from dllama.config import ModelConfig
from dllama.errors import SessionFileError
from dllama.kv_shift import KvShift
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.kv_files import file_name, mark_of
from dllama.runtime.rank import RankModel
from dllama.runtime.rank_stats import RankMeter, rank_row
from dllama.step import LogitRow, Step


class LocalRunner:
    """Runs steps on one RankModel that holds everything."""

    def __init__(
        self,
        model: RankModel,
        embedding: EmbeddingTable,
        *,
        fingerprint: bytes = bytes(32),
        kv_dir: Path | None = None,
    ) -> None:
        """`kv_dir` is where pages are saved, for a model of this fingerprint."""
        self.fingerprint, self._kv_dir = fingerprint, kv_dir
        self._model, self._embedding = model, embedding
        self._comm, self._meter = SoloCollective(), RankMeter(model)

    @property
    def config(self) -> ModelConfig:
        return self._model.weights.config

    @property
    def n_pages(self) -> int:
        return int(self._model.state.kv.keys.shape[1])

    @property
    def weight_bytes(self) -> int:
        return self._model.weights.n_bytes

    def counters(self) -> dict[str, int]:
        return {"compute_ns": self._model.compute_ns, "wait_ns": 0, "network_ns": 0}

    def run(self, step: Step) -> list[LogitRow]:
        rows = self._model.forward(step, self._embedding.rows(step.tokens), self._comm)
        assert rows is not None  # the only rank is rank 0
        self._meter.note(step)
        return rows

    def shift(self, shift: KvShift) -> None:
        self._model.shift(shift)

    def save_kv(self, name: str, pages: Sequence[int], stamp: bytes) -> int:
        mark = mark_of(self.fingerprint, stamp, 0)
        return self._model.save_kv(self._kv_path(name), pages, mark, _no_watchdog)

    def load_kv(self, name: str, pages: Sequence[int], stamp: bytes) -> int:
        mark = mark_of(self.fingerprint, stamp, 0)
        return self._model.load_kv(self._kv_path(name), pages, mark, _no_watchdog)

    def _kv_path(self, name: str) -> Path:
        if self._kv_dir is None:
            raise SessionFileError("this model was loaded without a directory for sessions")
        return self._kv_dir / file_name(name, self.fingerprint, 0)

    @property
    def hidden(self) -> np.ndarray:
        return self._model.hidden

    def idle(self) -> None:
        """Nobody to watch over."""

    def recover(self) -> None:
        """Nothing can be lost."""

    def stats(self) -> list[dict[str, object]]:
        return [rank_row(0, "local", self._model, self._meter)]

    def close(self) -> None:
        self._model.close()


def _no_watchdog() -> None:
    """Nobody waits for this rank but its owner."""
