from __future__ import annotations

import pytest

from cluster.mesh.sync_type import SyncType
from cluster.planning.links import LinkSpeed, Network
from cluster.planning.predict import Predictor
from tests.cluster.planning.clusters import GIGABIT, SLOW, node, predictor, work_of

NO_LINK = LinkSpeed.rated(0.0, 1e9)


def test_one_node_reads_its_weights() -> None:
    found = predictor([node("a", read=25)])
    shards = found.work.shards([1.0])
    step = found.predict([0], shards, 512).decode
    reading = found.work.weight_bytes() / 25e9
    assert step.network == 0.0
    assert reading < step.compute < 1.15 * reading


def test_half_of_the_weights_take_half_the_time_where_nothing_is_lost() -> None:
    found = predictor([node("a"), node("b")], NO_LINK)
    one = found.predict([0], found.work.shards([1.0]), 512)
    two = found.predict([0, 1], found.work.shards([1.0, 1.0]), 512)
    assert two.decode.total == pytest.approx(one.decode.total / 2, rel=0.04)
    assert two.prompt.total == pytest.approx(one.prompt.total / 2, rel=0.08)


def test_synchronisations_are_two_a_layer() -> None:
    found = predictor([node("a"), node("b")])
    two = found.predict([0, 1], found.work.shards([1.0, 1.0]), 512)
    assert two.n_syncs == 32
    assert two.decode.network == pytest.approx(32 * two.sync_s + 80e-6)
    assert two.sync_s == pytest.approx(GIGABIT.seconds(8192), rel=0.1)


def test_all_wait_for_the_slowest_in_each_half_layer() -> None:
    found = predictor([node("fast", 50), node("slow", 10)], NO_LINK)
    step = found.predict([0, 1], found.work.shards([1.0, 1.0]), 512).decode
    slow = step.ranks[1]
    assert step.compute == pytest.approx(slow.total)
    assert step.ranks[0].total < slow.total / 3


def test_a_prompt_is_many_rows_and_several_steps() -> None:
    found = predictor([node("a")])
    shards = found.work.shards([1.0])
    short, long = (found.predict([0], shards, n) for n in (256, 1024))
    assert long.prompt.total > 4 * short.prompt.total  # the context before it is read too
    assert short.prompt_per_s > long.prompt_per_s > short.prompt_per_s / 2
    assert short.prompt_per_s > 3 * short.decode_per_s


def test_smaller_types_of_sums_take_less_wire() -> None:
    work, nodes = work_of(), [node("a"), node("b")]
    network = Network({}, SLOW)
    times = [
        Predictor(work, nodes, network, kind).sync_s([0, 1], 64)
        for kind in (SyncType.EXACT, SyncType.BF16, SyncType.Q80)
    ]
    assert times[0] > times[1] > times[2]


def test_many_rows_are_scattered_where_that_is_shorter() -> None:
    found = predictor([node(n) for n in "abcd"], LinkSpeed.rated(10, 1.0))
    n_bytes = 256 * 2048 * 4
    assert found.sync_s(range(4), 256) < found.network.exchange_s(range(4), n_bytes)


def test_a_type_that_was_not_measured_counts_as_the_slowest() -> None:
    from dllama.qtypes import QType

    found = predictor([node("a")], work=work_of(qtype=QType.Q8_0))
    step = found.predict([0], found.work.shards([1.0]), 512).decode
    assert step.compute > found.work.weight_bytes() / 25e9
