"""One machine's runner over a model file, as the composition root builds it, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dllama.collective import Collective
from dllama.formats import open_model
from dllama.formats.quantized import open_weights
from dllama.kv_type import KvType
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.local_runner import LocalRunner
from dllama.runtime.rank import RankModel
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import Shard, plan_for
from dllama.sharding.units import units_of
from dllama.step import PAGE_TOKENS, LogitRow, Step
from dllama.weight_source import WeightSource
from kernels.matmul.sums import Kind

ROWS = 128  # of a step


def load_rank(
    source: WeightSource, shard: Shard, *, n_pages: int = 32, threads: int = 1, rows: int = ROWS,
    kv_type: KvType = KvType.F16, kind: Kind | None = None,
) -> RankModel:  # fmt: skip
    """`kind` is by default that of a cluster with exact sums, or of a single rank."""
    made = Kind.ROUNDED if shard.world_size == 1 else Kind.FIXED
    return RankModel.load(
        source.config, cut_tensors(source, shard), n_pages=n_pages, max_step_tokens=rows,
        n_threads=threads, vocab_start=shard.vocab.start,
        embed_qtype=source.tensors["embed"].qtype, kv_type=kv_type,
        units=units_of(source.config, source.tensors), kind=made if kind is None else kind,
    )  # fmt: skip


def load_whole(
    source: WeightSource, *, n_pages: int = 32, kv_type: KvType = KvType.F16
) -> RankModel:
    [shard] = plan_for(source.config, source.tensors, [1.0])
    return load_rank(source, shard, n_pages=n_pages, kv_type=kv_type)


@contextmanager
def local_runner(
    path: Path, *, n_pages: int = 32, threads: int = 1, kv_type: KvType = KvType.F16,
    quantize: str | None = None,
) -> Iterator[LocalRunner]:  # fmt: skip
    runner = LocalRunner.load(
        open_weights(path, quantize),
        n_pages=n_pages,
        max_step_tokens=ROWS,
        n_threads=threads,
        kv_type=kv_type,
    )
    try:
        yield runner
    finally:
        runner.close()


class Ranks:
    """Several ranks of one model in this process, in threads, over any collectives."""

    def __init__(
        self, model: Path | WeightSource, shares: list[float], comms: list[Collective], *,
        n_pages: int = 32, kv_type: KvType = KvType.F16,
    ) -> None:  # fmt: skip
        self.source: WeightSource = open_model(model) if isinstance(model, Path) else model
        self.embedding = EmbeddingTable(self.source)
        shards = plan_for(self.source.config, self.source.tensors, shares)
        self.models = [
            load_rank(self.source, shard, n_pages=n_pages, kv_type=kv_type) for shard in shards
        ]
        self.comms = comms

    def run(self, step: Step) -> list[LogitRow]:
        import threading

        rows = self.embedding.rows(step.tokens)
        found: dict[int, list[LogitRow] | None] = {}
        errors: list[BaseException] = []

        def one(rank: int) -> None:
            try:
                found[rank] = self.models[rank].forward(step, rows, self.comms[rank])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(r,)) for r in range(len(self.models))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if errors:
            raise errors[0]
        assert found[0] is not None
        return found[0]

    def close(self) -> None:
        for model in self.models:
            model.close()


def make_step(
    chunks: list[tuple[int, list[int], int]], *, candidates: int = 0, pages_each: int = 8,
    every_row: bool = False,
) -> Step:  # fmt: skip
    """chunks: (sequence number, tokens, first position). Sequence s owns pages s * pages_each and
    on, and slot s. Logits of each chunk's last row, or of every row."""
    tokens = [t for _, chunk, _ in chunks for t in chunk]
    positions = [p + i for _, chunk, p in chunks for i in range(len(chunk))]
    starts = np.concatenate([[0], np.cumsum([len(c) for _, c, _ in chunks])]).astype(np.int32)
    pages = [range(s * pages_each, (s + 1) * pages_each) for s, _, _ in chunks]
    wants = np.arange(len(tokens)) if every_row else starts[1:] - 1
    assert max(positions) < pages_each * PAGE_TOKENS
    return Step(
        np.array(tokens, np.int32), np.array(positions, np.int32), starts,
        np.array(pages, np.int32), wants.astype(np.int32),
        np.full(len(wants), candidates, np.int32),
        slots=np.array([[s, s] for s, _, _ in chunks], np.int32),
    )  # fmt: skip
