"""Set-ups in turn: A B C A B C …, and what comes of it. Knows no processes: whatever opens and
measures is given."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from benchmarks.lan.set_ups import SetUp
from benchmarks.names import parse_test

Sample = Mapping[str, Any]  # of one run of a test: `tokens_per_s` at least, None where it cannot
Samples = dict[tuple[SetUp, str], list[Sample]]
TIMES = ("compute_ms", "wait_ms", "network_ms")  # of a token, on the first node


class Measures(Protocol):
    """A set-up that is loaded."""

    def measure(self, test: str) -> Sample: ...


Open = Callable[[SetUp], AbstractContextManager[Measures]]
Tell = Callable[[int, SetUp, str, Sample], None]


def measure_in_turn(
    set_ups: Sequence[SetUp], tests: Sequence[str], rounds: int, open_one: Open, tell: Tell,
    *, holds_all: bool,
) -> Samples:  # fmt: skip
    """Returns the samples of every set-up and test, one a round. With `holds_all` all set-ups stay
    loaded, and each test goes round all of them; else each is loaded anew in every round."""
    found: Samples = {(set_up, test): [] for set_up in set_ups for test in tests}

    def measure(number: int, set_up: SetUp, peer: Measures, test: str) -> None:
        sample = peer.measure(test)
        found[set_up, test].append(sample)
        tell(number, set_up, test, sample)

    if not holds_all:
        for number in range(rounds):
            for set_up in set_ups:
                with open_one(set_up) as peer:
                    for test in tests:
                        measure(number, set_up, peer, test)
        return found
    with ExitStack() as stack:
        peers = [(set_up, stack.enter_context(open_one(set_up))) for set_up in set_ups]
        for test in tests:
            for number in range(rounds):
                for set_up, peer in peers:
                    measure(number, set_up, peer, test)
    return found


def fits_at_once(set_ups: Sequence[SetUp], model_bytes: int, free_bytes: int) -> bool:
    """Returns whether all set-ups can be loaded together: dllama's hold a model each, the other
    programs load one for each test, on both sides."""
    n_ours = sum(set_up.program == "dllama" for set_up in set_ups)
    n_theirs = 2 if n_ours < len(set_ups) else 0
    return (n_ours + n_theirs) * model_bytes * 1.3 < free_bytes * 0.8


def rows_of(found: Samples, baseline: SetUp) -> list[dict[str, Any]]:
    """Returns a row for each set-up and test that it can run: medians, and the median of the ratios
    to the baseline, round by round."""
    rows = []
    for (set_up, test), samples in found.items():
        speeds = [sample["tokens_per_s"] for sample in samples]
        if not speeds or None in speeds:
            continue
        row: dict[str, Any] = {
            "set_up": set_up.name, "program": set_up.program, "nodes": set_up.nodes,
            "sync_type": set_up.sync_type, "encrypts": set_up.encrypts, "test": test,
            "tokens_per_s": statistics.median(speeds), "samples": speeds,
            "of_one_node": ratio(speeds, [s["tokens_per_s"] for s in found[baseline, test]]),
        }  # fmt: skip
        if TIMES[0] in samples[0]:
            row |= {key: statistics.median(s[key] for s in samples) for key in TIMES}
            row["lost_samples"] = [s["wait_ms"] + s["network_ms"] for s in samples]
        if "ranks" in samples[0] and parse_test(test).is_decode:
            row["ranks"] = samples[-1]["ranks"]
        rows.append(row)
    return rows


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Returns the median of the ratios of pairs."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))
