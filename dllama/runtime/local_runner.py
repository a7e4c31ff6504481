"""The Runner without workers: rank 0 of one holds the whole model, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dllama.collective import SoloCollective
from dllama.config import ModelConfig
from dllama.errors import SessionFileError
from dllama.host.container import total_memory
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.nodes import NodeRow, NodesAction, NodesCall, NodesReply
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.kv_files import file_name, mark_of, model_fingerprint
from dllama.runtime.meter import RankIdentity, RankMeter, rss_bytes, stats_row
from dllama.runtime.rank import RankModel
from dllama.sharding.cut import cut_tensors
from dllama.sharding.memory import NodeMemory, check_fits, memory_needed
from dllama.sharding.plan import plan_for
from dllama.sharding.units import units_of
from dllama.step import LogitRow, Step
from dllama.weight_source import TensorFeed, TensorInfo, WeightSource
from kernels.cpu import isa
from kernels.matmul.sums import Kind


class LocalRunner:
    """A Runner over one RankModel that holds everything."""

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
        self._comm, self._meter = SoloCollective(), RankMeter()
        self._began_s = time.monotonic()

    @classmethod
    def load(
        cls, source: WeightSource, *, n_pages: int, max_step_tokens: int, n_threads: int,
        kv_type: KvType = KvType.F16, kv_dir: Path | None = None,
        available_bytes: int | None = None, on_progress: Callable[[float, str], None] | None = None,
        may_shift: bool = True,
    ) -> LocalRunner:  # fmt: skip
        """Packs the whole model. `on_progress` gets the part that is loaded, 0..1, and the name of
        what is loading; `may_shift` as RankModel.load has it.

        Raises ConfigError before anything is loaded where the model does not fit in
        `available_bytes` (None: not checked); ModelFileError.
        """
        config = source.config
        [shard] = plan_for(config, source.tensors, [1.0])
        if available_bytes is not None:
            needed = memory_needed(
                config, source.tensors, shard, n_pages=n_pages, max_step_tokens=max_step_tokens,
                kv_type=kv_type,
            )  # fmt: skip
            check_fits([NodeMemory("this machine", "here", needed, available_bytes)])
        tensors = cut_tensors(source, shard)
        model = RankModel.load(
            config, TensorFeed(tensors.manifest, _reporting(tensors, on_progress)),
            n_pages=n_pages, max_step_tokens=max_step_tokens, n_threads=n_threads,
            vocab_start=shard.vocab.start, embed_qtype=source.tensors["embed"].qtype,
            kv_type=kv_type, units=units_of(config, source.tensors), kind=Kind.ROUNDED,
            may_shift=may_shift,
        )  # fmt: skip
        return cls(
            model, EmbeddingTable(source), fingerprint=model_fingerprint(source, "whole"),
            kv_dir=kv_dir,
        )  # fmt: skip

    @property
    def config(self) -> ModelConfig:
        return self._model.weights.config

    @property
    def n_pages(self) -> int:
        return int(self._model.state.kv.keys.shape[1])

    @property
    def n_window_pages(self) -> int:
        return int(self._model.state.window_kv.keys.shape[1])

    @property
    def weight_bytes(self) -> int:
        return self._model.weights.read_bytes

    def counters(self) -> dict[str, int]:
        return self._meter.counters()

    def run(self, step: Step) -> list[LogitRow]:
        started = time.perf_counter_ns()
        rows = self._model.forward(step, self._embedding.rows(step.tokens), self._comm)
        assert rows is not None  # the only rank is rank 0
        self._meter.add(step, time.perf_counter_ns() - started)
        return rows

    def shift(self, shift: KvShift) -> None:
        self._model.shift(shift)

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        mark = mark_of(self.fingerprint, stamp, 0)
        return self._model.save_kv(self._kv_path(name), held, mark, _no_watchdog)

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        mark = mark_of(self.fingerprint, stamp, 0)
        return self._model.load_kv(self._kv_path(name), held, mark, _no_watchdog)

    def _kv_path(self, name: str) -> Path:
        if self._kv_dir is None:
            raise SessionFileError("this model was loaded without a directory for sessions")
        return self._kv_dir / file_name(name, self.fingerprint, 0)

    @property
    def hidden(self) -> np.ndarray:
        return self._model.hidden

    def idle(self) -> None:
        """Does nothing: there are no peers."""

    @property
    def pending_change(self) -> str | None:
        return None

    def recover(self) -> None:
        """Does nothing: there is no peer to lose."""

    def nodes(self, call: NodesCall) -> NodesReply:
        if call.action is not NodesAction.LIST:
            return NodesReply(
                call.id,
                error="this root was started without workers, and no node can join it or leave it; "
                "start it again with --workers HOST, and name others when it runs",
            )
        config = self._model.weights.config
        row = NodeRow(
            "local", "present", 1.0, time.monotonic() - self._began_s, rank=0,
            kv_heads=config.n_kv_heads, hidden=config.hidden_dim,
            rss_bytes=rss_bytes(), memory_bytes=total_memory(),
        )  # fmt: skip
        return NodesReply(call.id, nodes=[row])

    def node_replies(self) -> list[NodesReply]:
        return []

    def stats(self) -> list[dict[str, object]]:
        weights, threads = self._model.weights, self._model.team.n_threads
        config = weights.config
        who = RankIdentity(0, "local", isa(), threads, config.n_kv_heads, config.hidden_dim)
        return [stats_row(who, self._meter.figures(weights.read_bytes), rss_bytes())]

    def close(self) -> None:
        self._model.close()


def _reporting(
    tensors: TensorFeed, on_progress: Callable[[float, str], None] | None
) -> Iterator[tuple[TensorInfo, np.ndarray]]:
    """Yields the tensors and reports the progress of packing."""
    total, done = sum(info.n_bytes for info in tensors.manifest), 0
    for info, raw in tensors:
        yield info, raw
        done += raw.nbytes
        if on_progress is not None:
            on_progress(min(1.0, done / total), f"loading {info.name}")


def _no_watchdog() -> None:
    """Does nothing: no daemon watches this rank."""
