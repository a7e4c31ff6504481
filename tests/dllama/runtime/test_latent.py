"""Latent attention on one rank and on several: the pages that it keeps, moved, copied and saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.rope import rope_frequencies
from dllama.runtime.manifest import manifest_by_layer
from dllama.sharding.cut import cut_manifest
from dllama.sharding.memory import kv_page_bytes
from dllama.sharding.plan import plan_for
from tests.dllama.runtime.test_exact import bits
from tests.local_model import Ranks, make_step
from tests.toy_models import write_toy

TOKENS = [int(t) for t in np.random.default_rng(2).integers(0, 352, 45)]
WIDTH = 40  # values of a row: 32 and 8 that are rotated, padded to 48 in pages


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four heads."""
    return write_toy(tmp_path_factory.mktemp("latent") / "toy.gguf", arch="deepseek2", dim=160)


@pytest.fixture
def ranks(path: Path) -> Iterator[Ranks]:
    """Five nodes, one of which has no heads."""
    group = ThreadGroup(5)
    comms = [ThreadCollective(group, rank) for rank in range(5)]
    ranks = Ranks(path, [1.0] * 5, comms, kv_type=KvType.F32)
    yield ranks
    ranks.close()


def rows_of(ranks: Ranks, page: int) -> np.ndarray:
    """The rows of a page on the first rank, (layers, 32, WIDTH)."""
    values = ranks.models[0].state.kv.values.view(np.float32)[:, page, 0]
    return values.reshape(2, 32, -1)[..., :WIDTH].copy()


def test_more_nodes_than_heads_equal_one(path: Path, ranks: Ranks) -> None:
    """Each node with heads keeps the same rows, whatever their number; the others keep none."""
    assert [m.weights.n_kv_heads for m in ranks.models] == [1, 1, 1, 1, 0]
    config = ranks.source.config
    for model in ranks.models:
        n_bytes = sum(array.nbytes for array in model.state.kv)
        n_heads = model.weights.n_kv_heads
        assert n_bytes == 32 * kv_page_bytes(config, 2, n_heads, KvType.F32)
        assert n_bytes == 32 * 32 * 2 * 48 * 4 * min(1, n_heads)
    assert bits(path, [1.0] * 5) == bits(path, [1.0])
    ranks.run(make_step([(0, TOKENS, 0)]))
    kept = [model.state.kv.values for model in ranks.models[:4]]
    assert all(np.array_equal(kept[0], other) for other in kept[1:])


def test_rows_are_turned_back_where_a_context_is_shifted(ranks: Ranks) -> None:
    """Pairs of neighbours of the rotated part, on all nodes; the rest moves as it is."""
    ranks.run(make_step([(0, TOKENS[:32], 0)]))
    page, before = np.zeros(1, np.int32), rows_of(ranks, 0)
    for model in ranks.models:
        model.shift(KvShift(32, 2, 5, page, page))
    after = rows_of(ranks, 0)
    assert np.array_equal(after[:, :2], before[:, :2])
    assert np.array_equal(after[:, 2:27, :32], before[:, 7:, :32])
    angles, _ = rope_frequencies(ranks.source.config)
    pairs = before[:, 7:, 32::2] + 1j * before[:, 7:, 33::2]
    wanted = pairs * np.exp(-5j * angles)
    np.testing.assert_allclose(after[:, 2:27, 32::2], wanted.real, atol=1e-5)
    np.testing.assert_allclose(after[:, 2:27, 33::2], wanted.imag, atol=1e-5)
    others = [model.state.kv.values for model in ranks.models[1:4]]
    assert all(np.array_equal(other, ranks.models[0].state.kv.values) for other in others)


def test_pages_are_copied_and_saved(tmp_path: Path, ranks: Ranks) -> None:
    """A sequence goes on from another's pages, and from those that a file gave back."""
    ranks.run(make_step([(0, TOKENS[:40], 0)]))
    [wanted] = ranks.run(make_step([(0, TOKENS[40:], 40)]))
    copied = replace(make_step([(1, TOKENS[40:], 40)]), copies=np.array([[0, 8], [1, 9]], np.int32))
    assert copied.pages[0, :2].tolist() == [8, 9]
    [found] = ranks.run(copied)
    assert np.array_equal(found.logits, wanted.logits)
    for i, model in enumerate(ranks.models):
        model.save_kv(tmp_path / str(i), KvHeld.of([0, 1]), bytes(32), lambda: None)
        model.load_kv(tmp_path / str(i), KvHeld.of([16, 17]), bytes(32), lambda: None)
    [found] = ranks.run(make_step([(2, TOKENS[40:], 40)]))
    assert np.array_equal(found.logits, wanted.logits)


def test_a_manifest_of_heads_that_do_not_fit_is_refused(path: Path) -> None:
    """Kernels read as many queries of a row as there are matrices of heads."""
    source = open_model(path)
    shard = plan_for(source.config, source.tensors, [1.0, 1.0])[0]
    manifest = [cut.info for cut in cut_manifest(source.config, source.tensors, shard)]
    manifest_by_layer(source.config, manifest)
    for name, rows in itertools.product(("wk_b", "wq_b"), (32, 33)):
        bad = [
            replace(info, rows=rows) if info.name == f"layers.1.{name}" else info
            for info in manifest
        ]
        with pytest.raises(ModelFileError, match="as many heads"):
            manifest_by_layer(source.config, bad)
