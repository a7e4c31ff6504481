"""The nodes that are chosen have room for the model; who is left out is told why, with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.machine import machine_id
from cluster.root.fitting import Candidate, Fitting, Misfit, choose
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from cluster.wire.messages import Welcome
from dllama.errors import ConfigError
from tests.cluster.array_source import ArraySource, small_config

LARGE = 1 << 40


def candidate(number: int, available: int = LARGE, share: float = 1.0) -> Candidate:
    welcome = Welcome(
        "0", f"d{number}", "h", f"machine-{number}", "cpu", "isa", 1, LARGE, available, LARGE
    )
    return Candidate(Address(f"host-{number}"), share, welcome)


def fitting(n_workers: int = 2, **changes: object) -> Fitting:
    workers = [Address(f"host-{n}") for n in range(n_workers)]
    config = ClusterConfig(workers, 64, 64, 1, **changes)  # type: ignore[arg-type]
    return Fitting(ArraySource(small_config()), config)


def test_the_shares_of_those_that_are_left_are_used_in_proportion() -> None:
    plans = fitting(shares=[3, 2, 1])
    config = plans.session_config([candidate(1, share=1)], 64)
    assert list(config.checked_shares()) == [3, 1] and config.world_size == 2
    [own, other] = plans.shards(config)
    assert len(own.hidden) > 2 * len(other.hidden)
    [alone] = plans.shards(plans.session_config([], 64))
    assert len(alone.hidden) == small_config().hidden_dim


def test_a_node_without_room_is_left_out_with_figures() -> None:
    plans = fitting()
    nodes = [candidate(0), candidate(1, available=1 << 20)]
    found = choose(nodes, 64, 8, lambda c, n: plans.misfit(c, n, LARGE, {}))
    assert [c.address.host for c in found.candidates] == ["host-0"] and found.n_pages == 64
    assert "worker host-1:9998 needs" in found.left_out[Address("host-1")]


def test_memory_that_comes_free_counts_but_no_more_than_there_is() -> None:
    plans = fitting()
    nodes = [candidate(0, available=1 << 20)]
    assert plans.misfit(nodes, 64, LARGE, {}) is not None
    assert plans.misfit(nodes, 64, LARGE, {"machine-0": 1 << 34}) is None
    assert plans.misfit([], 64, 1 << 20, {}) is not None
    assert plans.misfit([], 64, 1 << 20, {machine_id(): 1 << 34}) is None


def test_containers_have_room_of_their_own_but_no_more_than_their_machine() -> None:
    plans = fitting()
    [own, first, _] = plans.shards(plans.session_config([candidate(0), candidate(1)], 64))
    each = max(plans.needed(shard, 64) for shard in (own, first)) * 11 // 10
    for total, fits in ((LARGE, True), (2 * each, True), (each, False)):
        nodes = [
            Candidate(
                c.address, 1.0, replace(c.welcome, machine=f"box/{n}", machine_available=total)
            )
            for n, c in enumerate((candidate(0, each), candidate(1, each)))
        ]
        found = plans.misfit(nodes, 64, LARGE, {})
        assert (found is None) == fits, total
    assert found is not None and found.node == 1 and "its machine needs" in found.reason
    # What the session before takes of one of them comes free for both.
    held = {"box/0": each}
    assert plans.misfit(nodes, 64, LARGE, held) is None


def test_more_nodes_than_the_model_has_columns_are_left_out() -> None:
    plans = fitting()
    nodes = [candidate(n) for n in range(200)]
    found = choose(nodes, 64, 8, lambda c, n: plans.misfit(c, n, LARGE, {}))
    assert 0 < len(found.candidates) < 200
    assert "use at most" in next(iter(found.left_out.values()))


def test_where_nothing_fits_the_first_reason_is_told() -> None:
    plans = fitting()
    with pytest.raises(ConfigError, match=r"does not fit the memory of the root: the root needs"):
        choose([candidate(0)], 64, 8, lambda c, n: plans.misfit(c, n, 1 << 10, {}))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 100), max_size=6), st.integers(0, 300), st.integers(1, 64),
)  # fmt: skip
def test_what_is_chosen_fits_and_nothing_is_refused_that_fits_alone(
    rooms: Sequence[int], root_room: int, n_pages: int
) -> None:
    """A model of 100 and its pages, cut evenly: each node needs its part."""

    def misfit(chosen: Sequence[Candidate], pages: int) -> Misfit | None:
        needed = (100 + pages) / (len(chosen) + 1)
        short = [i for i, c in enumerate(chosen) if c.welcome.memory_available < needed]
        if short:
            return Misfit(short[-1], "a worker is too small")
        return Misfit(None, "the root is too small") if root_room < needed else None

    nodes = [candidate(n, room) for n, room in enumerate(rooms)]
    try:
        found = choose(nodes, n_pages, 1, misfit)
    except ConfigError:
        assert misfit([], 1) is not None
        return
    assert misfit(found.candidates, found.n_pages) is None
    assert 1 <= found.n_pages <= n_pages
    used = {c.address for c in found.candidates}
    assert used | set(found.left_out) == {c.address for c in nodes}
    assert not used & set(found.left_out)
