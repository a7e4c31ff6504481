"""The results of one model on one link: a table for the terminal, the same in Markdown, and what
they say in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from benchmarks.lan.rounds import TIMES, ratio
from benchmarks.names import parse_test

Row = Mapping[str, Any]
FLOOR_FACTOR = 1.3  # of what plain TCP needs: as near as a mesh with headers and sums can come
_TIME_NAMES = ("compute ms", "wait ms", "network ms")


def title(run: Row) -> str:
    """Returns the model and the link."""
    return f"{run['model']}, {run['link']}"


def header(run: Row) -> list[str]:
    """Returns the names of the columns: tokens/s of each test, then times of a decoded token."""
    return ["set-up", *map(test_title, run["tests"]), *(_TIME_NAMES if _single(run) else ())]


def test_title(name: str) -> str:
    """Returns a test's name in words."""
    test = parse_test(name)
    words = f"decode {test.n_tokens}" if test.is_decode else f"prompt of {test.n_tokens}"
    batch = f", {test.batch} at once" if test.batch > 1 else ""
    return words + batch + (f" after {test.depth}" if test.depth else "")


def lines(run: Row) -> list[list[str]]:
    """Returns a line for each set-up: tokens/s, in brackets the ratio to one node with all cores,
    and what a decoded token took on the first node."""
    rows = {(row["set_up"], row["test"]): row for row in run["rows"]}
    single = _single(run)
    found = []
    for name in dict.fromkeys(row["set_up"] for row in run["rows"]):
        cells = [name]
        for test in run["tests"]:
            row = rows.get((name, test))
            cells.append(f"{row['tokens_per_s']:.1f} ({row['of_one_node']:.2f})" if row else "")
        if single:
            row = rows.get((name, single), {})
            cells += [f"{row[key]:.2f}" if key in row else "" for key in TIMES]
        found.append(cells)
    return found


def rich_table(run: Row) -> Table:
    view = Table(title=title(run), title_justify="left")
    for number, name in enumerate(header(run)):
        view.add_column(name, justify="right" if number else "left")
    for cells in lines(run):
        view.add_row(*cells)
    return view


def markdown(found: Row) -> str:
    """Returns all runs as a page: the machine, then a table and sentences for each."""
    facts = found["machine"]
    parts = [
        f"{facts['processor']} ({facts['cpu']}), {facts['cores']} cores, Linux {facts['kernel']}, "
        f"{facts['date']}, {facts['commit']}. {found['cores_per_node']} core(s) a node; medians of "
        f"{found['rounds']}; tokens/s, and in brackets the ratio to one node with the cores of all."
    ]
    for run in found["runs"]:
        names = header(run)
        aligned = ["---", *["---:"] * (len(names) - 1)]
        table = [f"| {' | '.join(cells)} |" for cells in (names, aligned, *lines(run))]
        said = [f"- {sentence}" for sentence in sentences(run)]
        parts += [f"### {title(run)}", "\n".join(table), "\n".join(said)]
    return "\n\n".join(parts) + "\n"


def sentences(run: Row) -> list[str]:
    """Returns how near the floors of plain TCP each cluster comes, and its ratios to the others."""
    floors = (_floor_sentence(run, floor) for floor in run["floors"])
    return [*floors, *_reading_sentences(run), *_peer_sentences(run)]


def _floor_sentence(run: Row, floor: Row) -> str:
    least = min(floor["looking_ms"], floor["sleeping_ms"])
    exchanges = floor["exchanges"]
    n_rows = exchanges["n_rows"]
    what = "a decoded token" if n_rows == 1 else f"a prompt of {n_rows}"
    said = (
        f"Plain TCP needs {least:.2f} ms for {what}'s {exchanges['n']} exchanges of "
        f"{exchanges['n_bytes']:,} bytes (looking {floor['looking_ms']:.2f}, sleeping "
        f"{floor['sleeping_ms']:.2f}); {FLOOR_FACTOR} times that is {FLOOR_FACTOR * least:.2f}"
    )
    beside = []
    for row in run["rows"]:
        test = parse_test(row["test"])
        is_same = test.batch == 1 and (1 if test.is_decode else test.n_tokens) == n_rows
        if row["program"] == "dllama" and is_same and row["sync_type"] in exchanges["sync_types"]:
            ours = (row["wait_ms"] + row["network_ms"]) * n_rows
            beside.append(f"{ours:.2f} ({ours / least:.2f} times) on {row['set_up']}")
    return f"{said}. Wait and network are {'; '.join(beside)}." if beside else f"{said}."


def _reading_sentences(run: Row) -> list[str]:
    """Returns what exchanging takes of a decoded token where both ends read their weights: in C,
    and in each cluster of the same type of sums."""
    said = []
    for floor in (row for row in run["rows"] if row["program"] == "plain TCP"):
        beside = [
            f"{row['wait_ms'] + row['network_ms']:.2f} "
            f"({ratio(row['lost_samples'], floor['lost_samples']):.2f} times) on {row['set_up']}"
            for row in run["rows"]
            if row["program"] == "dllama" and row["nodes"] > 1
            and (row["test"], row["sync_type"]) == (floor["test"], floor["sync_type"])
        ]  # fmt: skip
        said.append(
            f"{test_title(floor['test'])}: where two ends in C read as much memory as ranks, plain "
            f"TCP takes {floor['wait_ms']:.2f} ms of waiting and {floor['network_ms']:.2f} ms of "
            f"network a token; dllama takes {' and '.join(beside)} of both."
        )
    return said


def _peer_sentences(run: Row) -> list[str]:
    theirs = dict.fromkeys(
        r["set_up"] for r in run["rows"] if r["program"] not in ("dllama", "plain TCP")
    )
    ours = dict.fromkeys(
        r["set_up"] for r in run["rows"] if r["program"] == "dllama" and r["nodes"] > 1
    )
    rows = {(row["set_up"], row["test"]): row for row in run["rows"]}
    said = []
    for name in theirs:
        for own in ours:
            pairs = [
                (test, rows[own, test], rows[name, test])
                for test in run["tests"]
                if (own, test) in rows and (name, test) in rows
            ]
            times = ", ".join(
                f"{test_title(test)} {ratio(a['samples'], b['samples']):.2f}"
                for test, a, b in pairs
            )
            said.append(f"dllama on {own} is so many times as fast as {name}: {times}.")
    return said


def _single(run: Row) -> str | None:
    """Returns the first test that decodes one sequence."""
    for name in run["tests"]:
        test = parse_test(name)
        if test.is_decode and test.batch == 1:
            return str(name)
    return None
