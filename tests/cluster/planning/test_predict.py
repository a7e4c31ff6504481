from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.mesh.sync_type import SyncType
from cluster.planning.links import LinkPoint, LinkSpeed, Network
from cluster.planning.predict import Predictor
from cluster.planning.work import ModelWork
from dllama.kv_type import KvType
from tests.cluster.planning.clusters import (
    GIGABIT,
    SLOW,
    llama_1b,
    node,
    predictor,
    speeds,
    work_of,
)

NO_LINK = LinkSpeed.rated(0.0, 1e9)


def test_one_node_reads_its_weights() -> None:
    found = predictor([node("a", read=25)])
    shards = found.work.shards([1.0])
    step = found.predict([0], shards, 512).decode
    reading = found.work.weight_bytes() / 25e9
    assert step.network == 0.0
    assert reading < step.compute < 1.15 * reading


def test_a_prompt_multiplies_and_adds_with_each_weight() -> None:
    """Two operations a value and row; the last layer's feed-forward is for few rows."""
    slow = replace(node("a"), speeds=speeds(read=1000.0, multiply=10.0))
    found = predictor([slow])
    units = {"heads": 8, "hidden": 8192}
    values = sum(found.work.amounts[part][:, 1].sum() * n for part, n in units.items())
    step = found.step([0], found.work.shards([1.0]), 256, 0)
    expected = 2 * 256 * values / 10e9
    assert 15 / 16 * expected < step.compute < 1.05 * expected


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
    assert two.decode.network == pytest.approx(32 * two.sync_s + 80e-6, rel=0.01)
    assert two.sync_s == pytest.approx(GIGABIT.seconds(8192), rel=0.1)


def test_families_have_their_own_number_of_synchronisations() -> None:
    """One a layer where its halves are added up together, three where heads are measured before."""
    network = {}
    for arch, n_syncs in (("llama", 32), ("command-r", 16), ("olmo2", 48)):
        found = predictor([node("a"), node("b")], work=work_of(replace(llama_1b(), arch=arch)))
        two = found.predict([0, 1], found.work.shards([1.0, 1.0]), 512)
        assert two.n_syncs == n_syncs
        network[arch] = two.decode.network
    assert network["command-r"] < 0.6 * network["llama"] and network["llama"] < network["olmo2"]


def test_a_step_takes_its_embeddings_along() -> None:
    work, nodes = work_of(), [node("a"), node("b"), node("c")]
    shards = work.shards([1.0] * 3)
    slow = predictor(nodes, LinkSpeed.rated(0.0, 0.1))
    step = slow.step([0, 1, 2], shards, 4, 0)
    sums_s = 32 * slow.sync([0, 1, 2], 4).total
    n_bytes = 4 * 2048 // 32 * 18  # Q4_0, to each of two
    assert step.network - sums_s == pytest.approx(2 * n_bytes * 8 / 0.1e9)


def test_a_prompt_over_a_link_hides_what_travels_in_groups() -> None:
    found = predictor([node("a"), node("b")], LinkSpeed.rated(80, 1.0))
    shards = found.work.shards([1.0, 1.0])
    few, many = (found.step([0, 1], shards, n, 0) for n in (31, 512))
    wire = 512 * 2048 * 4 * 32 * 8 / 1e9
    assert many.network < 0.6 * wire
    assert few.network > 31 / 512 * wire


def test_sockets_take_processor_time_that_nothing_hides() -> None:
    plain = LinkSpeed([LinkPoint(1 << 20, 9000.0, 9000.0)])
    encrypted = LinkSpeed([LinkPoint(1 << 20, 9000.0, 9000.0, 3000.0)])
    nodes = [node("a", read=2), node("b", read=2)]  # slow: all that travels is hidden
    steps = [
        predictor(nodes, link).step([0, 1], work_of().shards([1.0, 1.0]), 512, 0)
        for link in (plain, encrypted)
    ]
    assert steps[0].compute == steps[1].compute
    sent = (4 + 36 / 32) / 2  # half of the sums, and of the quants of what is normed
    sockets_s = 32 * 512 * 2048 * sent / (1 << 20) * 3e-3
    assert steps[1].network - steps[0].network == pytest.approx(sockets_s, rel=0.05)


def test_keys_and_values_are_read_in_their_type() -> None:
    half = replace(work_of().room, kv_type=KvType.Q8_0)
    work = ModelWork(llama_1b(), work_of().tensors, half)
    reader = node("a")
    reader = replace(reader, speeds=replace(reader.speeds, attention_gop_per_s=1e4))
    steps = [
        predictor([reader], work=each).step([0], each.shards([1.0]), 1, 8000).compute
        for each in (work_of(), work)
    ]
    read_s = 8000 * 2 * 8 * 64 * 16 * 2 / 25e9  # in 16 bits
    assert steps[0] - steps[1] == pytest.approx(read_s * (1 - 34 / 64), rel=0.01)


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
        Predictor(work, nodes, network, kind).sync([0, 1], 64).total
        for kind in (SyncType.EXACT, SyncType.BF16, SyncType.Q80)
    ]
    assert times[0] > times[1] > times[2]


def test_many_rows_are_scattered_where_that_is_shorter() -> None:
    found = predictor([node(n) for n in "abcd"], LinkSpeed.rated(10, 1.0))
    n_bytes = 256 * 2048 * 4
    assert found.sync(range(4), 256).total < found.network.exchange_s(range(4), n_bytes)


def test_a_type_that_was_not_measured_counts_as_the_slowest() -> None:
    from dllama.qtypes import QType

    found = predictor([node("a")], work=work_of(qtype=QType.Q8_0))
    step = found.predict([0], found.work.shards([1.0]), 512).decode
    assert step.compute > found.work.weight_bytes() / 25e9


def test_each_group_of_a_prompt_expands_the_weights_anew() -> None:
    """Of 512 rows two nodes compute three groups, of 64 none is large enough."""
    plain = [node("a"), node("b")]
    costly = [
        replace(
            n, speeds=replace(n.speeds, types=[replace(t, expand_ns=0.1) for t in n.speeds.types])
        )
        for n in plain
    ]
    work = work_of()
    values = sum(work.amounts[part][0, 1] * n for part, n in work._units.items() if part != "vocab")
    last = work.amounts["hidden"][0, 1] * work.config.hidden_dim / work.config.n_layers
    for n_rows, n_groups in ((512, 3), (64, 0)):
        more = [
            predictor(nodes, NO_LINK).step([0, 1], work.shards([1.0, 1.0]), n_rows, 0).compute
            for nodes in (plain, costly)
        ]
        expected = n_groups * (values - last) / 2 * 0.1e-9
        assert more[1] - more[0] == pytest.approx(expected, rel=0.02)


def test_a_long_step_takes_a_while_of_each_group_whatever_it_computes() -> None:
    slow = [
        replace(n, speeds=replace(n.speeds, long_half_layer_us=1000.0))
        for n in (node("a"), node("b"))
    ]
    found, work = predictor(slow, NO_LINK), work_of()
    plain = predictor([node("a"), node("b")], NO_LINK)
    for n_rows, expected in ((1, 0.0), (512, 3 * 31 * 1e-3 - 31 * 8e-6)):
        both = [
            each.step([0, 1], work.shards([1.0, 1.0]), n_rows, 0).compute for each in (found, plain)
        ]
        assert both[0] - both[1] == pytest.approx(expected, abs=2e-5)
