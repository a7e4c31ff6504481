from __future__ import annotations

from cluster.planning.findings import RankTimes, findings
from cluster.planning.predict import Prediction
from tests.cluster.planning.clusters import node, predictor


def prediction(read: float = 25.0) -> Prediction:
    """Of two equal nodes."""
    found = predictor([node("root", read), node("b", read)])
    return found.predict([0, 1], found.work.shards([1.0, 1.0]), 512)


def times(*compute_ms: float, network_ms: float = 5.0) -> list[RankTimes]:
    slowest = max(compute_ms)
    return [
        RankTimes("the root" if i == 0 else f"worker {i}", each, slowest - each, network_ms)
        for i, each in enumerate(compute_ms)
    ]


def test_equal_nodes_are_nobodys_fault() -> None:
    assert findings(times(10, 10.2, 9.8), None) == ["", "", ""]


def test_a_straggler_is_named_with_what_it_costs() -> None:
    quiet, said, other = findings(times(10, 20, 9), None)
    assert quiet == other == ""
    assert said.startswith("worker 1 costs 40%: it computes 20.0 ms a token, and the others 10.0")


def test_the_root_can_be_the_straggler() -> None:
    assert findings(times(20, 10), None)[0].startswith("the root costs 40%")


def test_a_node_that_is_as_slow_as_predicted_costs_nothing() -> None:
    """A plan may give the slowest half layers to one, for memory's sake."""
    plan = prediction()
    expected = plan.decode.ranks[1].total * 1e3
    assert findings(times(expected / 3, expected), None)[1] != ""
    assert findings(times(expected / 3, expected), plan)[1] == ""
    said = findings(times(expected / 3, 2 * expected), plan)[1]
    assert f"{expected:.1f} were predicted" in said


def test_a_network_that_has_changed_is_told_on_the_root() -> None:
    plan = prediction()
    compute = plan.decode.ranks[0].total * 1e3
    expected = plan.decode.network * 1e3
    said = findings(times(compute, compute, network_ms=3 * expected), plan)
    assert said[0].startswith(f"The network takes {3 * expected:.1f} ms a token, where")
    assert said[1] == ""
    assert findings(times(compute, compute, network_ms=1.2 * expected), plan) == ["", ""]
    assert findings(times(compute, compute, network_ms=3 * expected), None) == ["", ""]


def test_both_at_once_on_the_root() -> None:
    plan = prediction()
    compute = plan.decode.ranks[0].total * 1e3
    said = findings(times(3 * compute, compute, network_ms=plan.decode.network * 4e3), plan)
    assert said[0].startswith("the root costs") and "The network takes" in said[0]


def test_nothing_is_said_before_a_token_was_decoded_or_of_one_node() -> None:
    assert findings(times(0.0, 0.0), prediction()) == ["", ""]
    assert findings(times(0.0, 3.0), prediction()) == ["", ""]
    assert findings(times(5.0), None) == [""]
