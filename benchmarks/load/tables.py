"""The tables of a load test."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

SERVERS = ("dllama", "llama-server")


def show(console: Console, found: dict[str, Any]) -> None:
    """Prints the results: a table a scenario, a row a server."""
    bench = found.get("bench_tokens_per_s")
    decodes = f"; dllama bench decodes {bench:.1f} tokens/s" if bench else ""
    facts = f"{found['model']}, {found['threads']} threads, {found['workers']} workers"
    console.print(facts + decodes, highlight=False)
    servers = [(name, found[name]) for name in SERVERS if name in found]
    if bench:
        console.print(load_table(servers, bench))
    for name, rows in (("intrusion", intrusion_table), ("turn", turn_table)):
        if name in servers[0][1]:
            console.print(rows(servers))


def load_table(servers: list[tuple[str, Any]], bench: float) -> Table:
    view = _table(
        "clients at once",
        *("clients", "tokens/s", "decoding", "of bench", "TTFT ms 50/95/99"),
        "interval ms 50/95/99",
    )
    for name, figures in servers:
        row = figures["load"]
        view.add_row(
            name, f"{row['clients']:.0f}", f"{row['total_tokens_per_s']:.1f}",
            f"{row['decode_tokens_per_s']:.1f}",
            f"{row['decode_tokens_per_s'] / bench:.3f}",
            _three(row["ttft_ms"]), _three(row["interval_ms"]),
        )  # fmt: skip
    return view


def intrusion_table(servers: list[tuple[str, Any]]) -> Table:
    view = _table(
        "a long prompt arrives",
        *("tokens", "its TTFT ms", "before ms 50/95/99", "during ms 50/95/99", "p95 ratio"),
    )
    for name, figures in servers:
        row = figures["intrusion"]
        view.add_row(
            name, str(row["prompt_tokens"]), f"{row['ttft_ms']:.0f}", _three(row["before_ms"]),
            _three(row["during_ms"]), f"{row['ratio_p95']:.2f}",
        )  # fmt: skip
    return view


def turn_table(servers: list[tuple[str, Any]]) -> Table:
    view = _table(
        "turn 20 of a chat",
        *("tokens", "cached", "TTFT ms", "without reuse", "times sooner", "same text"),
    )
    for name, figures in servers:
        row = figures["turn"]
        view.add_row(
            name, str(row["prompt_tokens"]), "/".join(map(str, row["cached_tokens"])),
            f"{row['ttft_ms']:.1f}", f"{row['ttft_without_ms']:.1f}", f"{row['ratio']:.1f}",
            "yes" if row["same_text"] else "NO",
        )  # fmt: skip
    return view


def _table(title: str, *columns: str) -> Table:
    view = Table(title=title, title_justify="left")
    view.add_column("server", no_wrap=True)
    for column in columns:
        view.add_column(column, justify="right")
    return view


def _three(percentiles: dict[str, float]) -> str:
    return "/".join(f"{value:.1f}" for value in percentiles.values())
