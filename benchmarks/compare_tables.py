"""The tables of a comparison: speeds with their ratios, and what a start takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table

from benchmarks.names import parse_test

OTHERS = ("llama.cpp", "distributed-llama", "one node")
Row = Mapping[str, Any]


def speed_table(rows: Sequence[Row], facts: Row) -> Table:
    """A line for each test. Shares are relative to the measured ceilings of the machine: of
    memory's bandwidth for decoding, of the rate of integer products for everything that reads block
    weights for many tokens."""
    other = _other(rows)
    names = ["model", "threads", "test", "tokens/s", "min-max", "memory", "int8", "network ms"]
    view = _view([*names, *([other, "ratio"] if other else [])])
    for row in rows:
        ours = row["dllama"]
        cells = [
            row["model"], str(row["threads"]), row["test"], f"{ours['median']:.1f}",
            f"{min(ours['samples']):.1f}-{max(ours['samples']):.1f}",
            _share(memory_share(row, facts)), _share(int8_share(row, facts)),
            f"{row['network_ms']:.2f}",
        ]  # fmt: skip
        if other:
            cells += [f"{row[other]['median']:.1f}", f"{row['ratio']:.2f}"]
        view.add_row(*cells)
    return view


def cost_table(rows: Sequence[Row]) -> Table:
    """A line for each model and number of threads: seconds to load, most memory that was held."""
    other = _other(rows)
    sides = ["dllama", *([other] if other else [])]
    view = _view(["model", "threads", *(f"{s} {w}" for s in sides for w in ("load s", "MB"))])
    last = {(row["model"], row["threads"]): row for row in rows}
    for (model, threads), row in last.items():
        cells = [model, str(threads)]
        for side in sides:
            cells += [f"{row[side]['load_s']:.1f}", f"{row[side]['peak_bytes'] / 1e6:.0f}"]
        view.add_row(*cells)
    return view


def memory_share(row: Row, facts: Row) -> float | None:
    """Returns the part of the threads' memory bandwidth that decoding one sequence used."""
    test = parse_test(row["test"])
    full = facts["memory_gb_per_s"].get(str(row["threads"] * row["nodes"]))
    if not test.is_decode or test.batch > 1 or not full:
        return None
    return float(row["gb_per_s"]) / float(full)


def int8_share(row: Row, facts: Row) -> float | None:
    """Returns the part of the threads' rate of integer products that a test used."""
    test = parse_test(row["test"])
    full = facts["int8_gop_per_s"].get(str(row["threads"] * row["nodes"]))
    is_float = row["model"].endswith(("F16", "BF16", "F32"))
    if (test.is_decode and test.batch == 1) or is_float or not full:
        return None
    weights = row["weights"]["body"] + (row["weights"]["head"] if test.is_decode else 0)
    return float(2 * weights * row["dllama"]["median"] / 1e9 / full)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _other(rows: Sequence[Row]) -> str | None:
    return next((name for name in OTHERS if rows and name in rows[0]), None)


def _view(names: Sequence[str]) -> Table:
    view = Table()
    for name in names:
        justify: JustifyMethod = "left" if name in ("model", "test") else "right"
        view.add_column(name, justify=justify, no_wrap=True)
    return view
