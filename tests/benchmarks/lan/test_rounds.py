"""Set-ups run in turn, and ratios are those of pairs of one round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.lan.rounds import Sample, Samples, fits_at_once, measure_in_turn, rows_of
from benchmarks.lan.set_ups import SetUp

ONE, BOTH = SetUp("dllama", 1, 1), SetUp("dllama", 1, 2)
THEIRS = SetUp("distributed-llama", 2, 1)


class Recorder:
    """Opens set-ups that measure nothing, and writes down what is done with them."""

    def __init__(self) -> None:
        self.did: list[str] = []

    @contextmanager
    def open(self, set_up: SetUp) -> Iterator[OneSetUp]:
        self.did.append(f"+{set_up.cores}")
        yield OneSetUp(self, set_up)
        self.did.append(f"-{set_up.cores}")


class OneSetUp:
    def __init__(self, recorder: Recorder, set_up: SetUp) -> None:
        self._recorder, self._set_up = recorder, set_up

    def measure(self, test: str) -> Sample:
        self._recorder.did.append(f"{test} {self._set_up.cores}")
        return {"tokens_per_s": 1.0}


@pytest.mark.parametrize(
    ("holds_all", "expected"),
    [
        (True, "+1,+2,a 1,a 2,a 1,a 2,b 1,b 2,b 1,b 2,-2,-1"),
        (False, "+1,a 1,b 1,-1,+2,a 2,b 2,-2,+1,a 1,b 1,-1,+2,a 2,b 2,-2"),
    ],
)
def test_all_have_their_turn_in_every_round(holds_all: bool, expected: str) -> None:
    recorder, told = Recorder(), []
    found = measure_in_turn(
        [ONE, BOTH], ["a", "b"], 2, recorder.open, lambda *told_now: told.append(told_now),
        holds_all=holds_all,
    )  # fmt: skip
    assert ",".join(recorder.did) == expected
    assert len(told) == 8 and all(len(samples) == 2 for samples in found.values())


def ours(*speeds: float) -> list[Sample]:
    times = {"compute_ms": 3.0, "wait_ms": 1.0, "network_ms": 2.0}
    return [{"tokens_per_s": speed, "ranks": [{"rank": 0}], **times} for speed in speeds]


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    found: Samples = {
        (ONE, "tg4"): ours(10, 10, 40), (BOTH, "tg4"): ours(20, 10, 10),
        (THEIRS, "tg4"): [{"tokens_per_s": 5.0}] * 3,
        (BOTH, "tg4xb2"): ours(9, 9, 9), (THEIRS, "tg4xb2"): [{"tokens_per_s": None}] * 3,
    }  # fmt: skip
    one, both, theirs, batch = rows_of(found, BOTH)
    assert one["tokens_per_s"] == 10 and one["of_one_node"] == 1.0, "of 0.5, 1 and 4"
    assert both["of_one_node"] == 1.0 and both["network_ms"] == 2.0
    assert both["lost_samples"] == [3.0] * 3, "what waiting and the network take together"
    assert theirs["of_one_node"] == 0.5 and "network_ms" not in theirs
    assert batch["set_up"] == "one node, 2 cores", "a test that one cannot run has no row of it"


def test_models_are_loaded_at_once_where_memory_has_room() -> None:
    assert fits_at_once([ONE, BOTH], 1000, 3_300)
    assert not fits_at_once([ONE, BOTH], 1000, 3_200)
    assert not fits_at_once([ONE, BOTH, THEIRS], 1000, 6_400), "its root and its worker too"
