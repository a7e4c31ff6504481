"""Pieces hold all of a model once, and every cut lies within the pieces that are named for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.qtypes import QType
from dllama.sharding import pieces
from dllama.sharding.pieces import pieces_of, read_piece, tiled_cuts, whole_model
from dllama.sharding.plan import plan_for
from tests.cluster.array_source import ArraySource, small_config

SOURCES = [
    ArraySource(small_config(hidden_dim=2048, vocab_size=4000, dim=256, head_dim=64), qtype)
    for qtype in (QType.Q4_0, QType.F16, QType.Q4_K)
]


@pytest.fixture(autouse=True, scope="module", params=[1000, pieces.WHOLE_BYTES])
def whole_bytes(request: pytest.FixtureRequest) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "WHOLE_BYTES", request.param)
        yield


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.tensors["wcls"].qtype.name)
def test_all_bytes_of_a_model_lie_in_one_piece(source: ArraySource) -> None:
    sized = [p for tiled in whole_model(source.config, source.tensors) for p in tiled.sized()]
    assert len({p.piece for p in sized}) == len(sized)
    for p in sized:
        assert read_piece(source, p).nbytes == p.n_bytes
    total = sum(info.n_bytes for name, info in source.tensors.items() if name != "embed")
    assert sum(p.n_bytes for p in sized) == total


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SOURCES), st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=1, max_size=5))
def test_ranks_need_pieces_of_the_whole_and_little_more_than_their_cuts(
    source: ArraySource, shares: list[float]
) -> None:
    whole = {
        p.piece: p.n_bytes
        for tiled in whole_model(source.config, source.tensors)
        for p in tiled.sized()
    }
    needed = set()
    for shard in plan_for(source.config, source.tensors, shares):
        for p in pieces_of(source.config, source.tensors, shard):
            assert whole[p.piece] == p.n_bytes, "a piece is the same for every plan"
            needed.add(p.piece)
        for tiled in tiled_cuts(source.config, source.tensors, shard):
            info, tiling = tiled.cut.info, tiled.tiling
            size = info.cols if tiling.is_by_cols else info.rows // info.n_experts
            covered = [n for _, part, at in tiling.spans(size) for n in at]
            assert covered == list(range(size))
            assert all(len(part) == len(at) > 0 for _, part, at in tiling.spans(size))
    assert needed == set(whole), "together they need all"


def test_a_slab_of_columns_is_what_the_file_has_there() -> None:
    source = SOURCES[0]
    [tiled] = [
        t for t in whole_model(source.config, source.tensors) if t.cut.info.name == "layers.0.w2"
    ]
    slabs = [read_piece(source, p) for p in tiled.sized()]
    assert len(slabs) > 1 and np.array_equal(np.hstack(slabs), source.read("layers.0.w2"))
