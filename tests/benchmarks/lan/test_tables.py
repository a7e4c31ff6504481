"""A table for each model and link, the same in Markdown, and sentences."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from benchmarks.lan.tables import header, lines, markdown, rich_table, sentences


def row(set_up: str, test: str, speed: float, ratio: float, **more: Any) -> dict[str, Any]:
    return {
        "set_up": set_up, "program": "distributed-llama" if "llama" in set_up else "dllama",
        "nodes": 1 if set_up.startswith("one") else 2, "sync_type": "", "test": test,
        "tokens_per_s": speed, "samples": [speed], "of_one_node": ratio, **more,
    }  # fmt: skip


TIMES = {"compute_ms": 20.0, "wait_ms": 1.0, "network_ms": 3.0}
CLUSTER = {**TIMES, "sync_type": "f32"}
RUN: dict[str, Any] = {
    "model": "1b", "link": "1 Gbit/s", "tests": ["tg64", "pp512"],
    "rows": [
        row("one node, 2 cores", "tg64", 50, 1, **TIMES),
        row("one node, 2 cores", "pp512", 250, 1, **TIMES),
        row("2 nodes, f32", "tg64", 40, 0.8, **CLUSTER),
        row("2 nodes, f32", "pp512", 200, 0.8, **CLUSTER),
        row("distributed-llama, 2 nodes", "tg64", 10, 0.2),
    ],
    "floors": [
        {"exchanges": {"sync_types": ("exact", "f32"), "n_rows": 1, "n_bytes": 8192, "n": 33},
         "looking_ms": 2.0, "sleeping_ms": 2.5},
    ],
}  # fmt: skip


def test_a_line_has_speeds_ratios_and_times_of_a_decoded_token() -> None:
    assert header(RUN)[1:3] == ["decode 64", "prompt of 512"]
    assert lines(RUN) == [
        ["one node, 2 cores", "50.0 (1.00)", "250.0 (1.00)", "20.00", "1.00", "3.00"],
        ["2 nodes, f32", "40.0 (0.80)", "200.0 (0.80)", "20.00", "1.00", "3.00"],
        ["distributed-llama, 2 nodes", "10.0 (0.20)", "", "", "", ""],
    ]


def test_sentences_compare_with_plain_tcp_and_with_others() -> None:
    floor, theirs = sentences(RUN)
    assert "Plain TCP needs 2.00 ms" in floor and "1.3 times that is 2.60" in floor
    assert floor.endswith("Wait and network are 4.00 (2.00 times) on 2 nodes, f32.")
    assert "2 nodes, f32" in theirs and theirs.endswith("decode 64 4.00.")


def test_a_floor_that_reads_stands_beside_clusters_of_its_sums() -> None:
    floor = row("plain TCP in C, exact", "tg64", 60, 1.2, **TIMES, sync_type="exact",
                lost_samples=[2.0, 4.0, 4.0], program="plain TCP")  # fmt: skip
    exact = row("2 nodes, exact", "tg64", 40, 0.8, **TIMES, sync_type="exact",
                lost_samples=[6.0, 4.0, 8.0])  # fmt: skip
    run = {**RUN, "floors": [], "rows": [*RUN["rows"][:3], exact, floor]}
    assert sentences(run) == [
        "decode 64: where two ends in C read as much memory as ranks, plain TCP takes 1.00 ms of "
        "waiting and 3.00 ms of network a token; dllama takes 4.00 (2.00 times) on 2 nodes, exact "
        "of both."
    ]
    assert lines(run)[-1][-3:] == ["20.00", "1.00", "3.00"]


def test_without_decoding_there_are_no_times() -> None:
    run = {**RUN, "tests": ["pp512"], "rows": RUN["rows"][1:2], "floors": []}
    assert lines(run) == [["one node, 2 cores", "250.0 (1.00)"]] and sentences(run) == []


def test_markdown_has_the_cells_of_the_table() -> None:
    facts = {"processor": "Xeon", "cpu": "znver4", "cores": 2, "kernel": "6.1",
             "date": "2026-11-29", "commit": "abc"}  # fmt: skip
    page = markdown({"machine": facts, "cores_per_node": 1, "rounds": 5, "runs": [RUN]})
    assert "### 1b, 1 Gbit/s" in page and "Xeon" in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 5 and {line.count("|") for line in table} == {7}
    console = Console(width=160)
    with console.capture() as told:
        console.print(rich_table(RUN))
    for cell in ("40.0 (0.80)", "distributed-llama, 2 nodes"):
        assert cell in told.get() and cell in page
