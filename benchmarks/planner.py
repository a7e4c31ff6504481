"""Does the planner tell the truth? What it predicts beside what is then measured.

    sudo .venv/bin/python -m benchmarks.planner
    sudo .venv/bin/python -m benchmarks.planner --set-ups gigabit,unequal --models 1b.gguf

On each set-up (one node of one core and of two; two nodes of one core at 1 Gbit/s and at 100
Mbit/s; two of which one gets half of its core's time) the nodes are measured as `dllama plan` does,
and a prompt of 512 tokens and decoding are run, in turn for --rounds. Tables show medians, and the
error: how much faster the prediction is. JSON and Markdown go to benchmarks/results. Machines are
network namespaces on this one (root needed): all nodes are measured at once, since they share its
memory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.compare import RESULTS, machine_facts, model_file
from benchmarks.lan.cpu_quota import why_no_quota
from benchmarks.lan.planned import SET_UPS, PlannedSetUp, measure
from benchmarks.names import parse_test
from benchmarks.namespaces import why_no_namespaces
from dllama.cli.flags.arguments import comma_list

MODELS = (("llama-3.2-1b", "Q4_0"), ("qwen3-0.6b", "Q6_K"))
TESTS = ("pp512", "tg32")
HEADER = ("model", "set-up", "test", "predicted", "measured", "error", "predicted ms",
          "measured ms")  # fmt: skip


def cells_of(row: dict[str, Any]) -> list[str]:
    """Returns a line of the table: tokens/s, the error, and of a token what is computing and what
    is waiting and the network."""
    beside = row["wait_ms"] + row["network_ms"]
    return [
        row["model"], row["set_up"], row["test"], f"{row['predicted_per_s']:.1f}",
        f"{row['tokens_per_s']:.1f}", f"{row['error']:+.0%}",
        f"{row['predicted_compute_ms']:.2f} + {row['predicted_network_ms']:.2f}",
        f"{row['compute_ms']:.2f} + {beside:.2f}",
    ]  # fmt: skip


def rich_table(rows: Sequence[dict[str, Any]]) -> Table:
    title = "tokens/s; ms of a token: computing + waiting and network"
    view = Table(title=title, title_justify="left")
    for number, name in enumerate(HEADER):
        view.add_column(name, justify="right" if number > 2 else "left")
    for row in rows:
        view.add_row(*cells_of(row))
    return view


def markdown(found: dict[str, Any]) -> str:
    """Returns the rows as a page."""
    facts, rows = found["machine"], found["rows"]
    aligned = [*["---"] * 3, *["---:"] * (len(HEADER) - 3)]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEADER, aligned, *map(cells_of, rows))]
    said = (
        f"{facts['processor']} ({facts['cpu']}), {facts['cores']} cores, Linux {facts['kernel']}, "
        f"{facts['date']}, {facts['commit']}. Medians of {found['rounds']}; tokens/s; ms of a "
        "token: computing + waiting and network. The error is how much faster the prediction is."
    )
    return f"{said}\n\n" + "\n".join(lines) + "\n"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.planner", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    # fmt: off
    add("--models", type=comma_list, default=(), metavar="FILE,...",
        help="model files (default: random ones, Llama 1B of Q4_0 and Qwen3 0.6B of Q6_K)")
    add("--set-ups", type=comma_list, default=tuple(SET_UPS), metavar="NAME,...",
        help=f"some of {', '.join(SET_UPS)}")
    add("--tests", type=comma_list, default=TESTS, metavar="NAME,...",
        help="of one sequence: pp512 is a prompt, tg32@d512 decodes after 512 tokens")
    add("--rounds", type=int, default=3, metavar="N", help="of which the medians are told")
    add("--homes", type=Path, metavar="FOLDER",
        help="where nodes keep the weights that they are sent, for the next call")
    add("--json", type=Path, metavar="FILE",
        help="where to write (default: benchmarks/results); Markdown beside it")
    # fmt: on
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[PlannedSetUp]:
    """Returns the set-ups that are asked for; ends the program where flags make no sense."""
    if args.rounds < 1:
        parser.error("--rounds is 1 or more")
    if not set(args.set_ups) <= SET_UPS.keys():
        parser.error(f"--set-ups are some of {', '.join(SET_UPS)}")
    try:
        if any(parse_test(test).batch > 1 for test in args.tests):
            parser.error("plans predict one sequence; leave xb out of --tests")
    except ValueError as error:
        parser.error(str(error))
    return [SET_UPS[name] for name in args.set_ups]


def main(argv: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and clean up
    parser = build_parser()
    args = parser.parse_args(argv)
    chosen = check(parser, args)
    reason = why_no_namespaces()
    if reason is None and any(set_up.quota < 1.0 for set_up in chosen):
        reason = why_no_quota()
    if reason is not None:
        raise SystemExit(f"{reason}; start this as root on Linux")
    os.environ["DLLAMA_SHARED_MEMORY"] = "0"  # of namespaces too the memory is one
    console = Console(width=None if sys.stdout.isatty() else 160)
    tell = Console(stderr=True, highlight=False).print
    facts = machine_facts()
    out = args.json or RESULTS / (
        f"{facts['cpu']}-{facts['cores']}-{facts['date']}-{facts['commit']}-planner.json"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"machine": facts, "rounds": args.rounds, "rows": []}
    files = [Path(name).resolve() for name in args.models]
    with ExitStack() as stack:
        folder = args.homes or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)  # of all set-ups: weights are sent once
        for model in files or [model_file(*shape) for shape in MODELS]:
            for set_up in chosen:
                found["rows"] += measure(set_up, model, args.tests, args.rounds, folder, tell)
                out.write_text(json.dumps(found, indent=1) + "\n")  # what is measured is not lost
                out.with_suffix(".md").write_text(markdown(found))
    console.print(rich_table(found["rows"]))
    console.print(f"written to {out} and {out.with_suffix('.md').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
