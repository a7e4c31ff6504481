"""A Runner over several ranks in threads of this process, for tests of the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.config import ModelConfig
from dllama.errors import SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.step import LogitRow, Step
from dllama.windows import window_pages
from tests.fixed_nodes import FixedNodes
from tests.local_model import ROWS, Ranks


class RanksRunner(FixedNodes, Ranks):
    """Satisfies dllama.runner.Runner; counts the rows it computes."""

    def __init__(
        self, path: Path, world_size: int, *, n_pages: int = 32, kv_type: KvType = KvType.F16
    ) -> None:
        group = ThreadGroup(world_size)
        comms = [ThreadCollective(group, rank) for rank in range(world_size)]
        super().__init__(path, [1.0] * world_size, list(comms), n_pages=n_pages, kv_type=kv_type)
        self.n_pages = n_pages
        self.n_rows = 0
        self.n_shifts = 0

    @property
    def config(self) -> ModelConfig:
        return self.source.config

    @property
    def n_window_pages(self) -> int:
        return window_pages(self.config, self.n_pages, ROWS)

    @property
    def weight_bytes(self) -> int:
        return sum(model.weights.read_bytes for model in self.models)

    @property
    def hidden(self) -> np.ndarray:
        return self.models[0].hidden

    def counters(self) -> dict[str, int]:
        return {"compute_ns": 0, "wait_ns": 0, "network_ns": 0}

    def run(self, step: Step) -> list[LogitRow]:
        self.n_rows += step.n_tokens
        return super().run(step)

    def shift(self, shift: KvShift) -> None:
        self.n_shifts += 1
        for model in self.models:
            model.shift(shift)

    @property
    def fingerprint(self) -> bytes:
        return bytes(32)

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        raise SessionFileError("this runner has no files")

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        raise SessionFileError("this runner has no files")

    def idle(self) -> None:
        """Nobody leaves."""

    @property
    def pending_change(self) -> str | None:
        return None

    def recover(self) -> None:
        """Nothing is lost."""

    def stats(self) -> list[dict[str, object]]:
        return []
