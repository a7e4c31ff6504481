"""Who holds what it may need can go on after any loss of one other worker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.qtypes import QType
from dllama.sharding import pieces
from dllama.sharding.losses import needs_after_losses
from dllama.sharding.pieces import pieces_of
from dllama.sharding.plan import plan_for
from tests.cluster.array_source import ArraySource, small_config

SOURCE = ArraySource(small_config(hidden_dim=2048, vocab_size=4000), QType.Q8_0)
CONFIG, TENSORS = SOURCE.config, SOURCE.tensors


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> object:
    """Tensors of tests are cut into pieces as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "WHOLE_BYTES", 1000)
        yield


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=2, max_size=5))
def test_spares_and_own_pieces_hold_every_plan_without_one_worker(shares: list[float]) -> None:
    plan = plan_for(CONFIG, TENSORS, shares)
    held = {
        rank: [sized.piece for sized in pieces_of(CONFIG, TENSORS, plan[rank])]
        for rank in range(1, len(shares))
    }
    for need in needs_after_losses(CONFIG, TENSORS, shares):
        assert need.rank != need.lost and 0 not in (need.rank, need.lost)
        held[need.rank] += [sized.piece for sized in need.pieces]
    for rank, owned in held.items():
        assert len(set(owned)) == len(owned), "nothing is named twice"
        for lost in range(1, len(shares)):
            rest = [rank for rank in range(len(shares)) if rank != lost]
            if rank != lost:
                after = plan_for(CONFIG, TENSORS, [shares[r] for r in rest])[rest.index(rank)]
                needed = {sized.piece for sized in pieces_of(CONFIG, TENSORS, after)}
                assert needed <= set(owned), f"rank {rank} lacks some after the loss of {lost}"


def test_one_worker_has_no_other_to_lose() -> None:
    assert not list(needs_after_losses(CONFIG, TENSORS, [1.0, 1.0]))
