"""Measures a model's speed, for dllama bench."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from rich.table import Table

from dllama.bench import Bench, Result, tests
from dllama.cli.build import build_runner
from dllama.cli.flags.engine import runner_settings
from dllama.cli.model_file import trained_context
from dllama.cli.terminal.output import is_terminal, loading, note, show, stderr
from dllama.errors import ConfigError
from kernels.cpu import cpu_name, isa


def run(args: argparse.Namespace) -> int:
    chosen = list(tests(args.n_prompt, args.n_gen, args.n_depth, args.batch))
    if not chosen:
        raise ConfigError("there is nothing to measure: give -p or -n a number above 0")
    longest = max(t.depth + t.n_tokens for t in chosen)
    settings = replace(
        runner_settings(args), ctx_size=longest, max_batch=max(args.batch), quantize=args.quantize
    )
    check_length(args.model, longest)
    with loading("loading") as report:
        runner = build_runner(settings, report, max(t.n_pages for t in chosen))
    results = []
    try:
        bench = Bench(runner, max_step_tokens=args.step_tokens)
        for test in chosen:
            with stderr().status(test.name):
                results.append(bench.measure(test, args.repeats))
            if not is_terminal() and not args.json:
                note(f"{test.name}: {results[-1].tokens_per_s:.2f} tokens/s")
        said = [str(row["finding"]) for row in runner.stats() if row.get("finding")]
    finally:
        runner.close()
    if args.json:
        print(json.dumps([r.to_json() for r in results], indent=1))
    else:
        show(table(args.model, results))
        for sentence in said:
            print(sentence)
    return 0


def check_length(model: str, longest: int) -> None:
    """Raises ConfigError where a test would not fit the model's context."""
    trained = trained_context(model)
    if longest > trained:
        raise ConfigError(
            f"the longest test needs a context of {longest} tokens and the model has {trained}; "
            "lower -p, -n or -d"
        )


def table(model: str, results: list[Result]) -> Table:
    """Returns the results as a table for people."""
    view = Table(title=f"{model}  ({cpu_name()}, {isa()})", title_justify="left")
    for name in ("test", "threads", "nodes", "tokens/s", "±", "predicted", "GB/s", "compute ms",
                 "wait ms", "network ms"):  # fmt: skip
        view.add_column(name, justify="left" if name == "test" else "right")
    for r in results:
        predicted = "-" if r.predicted_per_s is None else f"{r.predicted_per_s:.2f}"
        view.add_row(
            r.test, str(r.threads), str(r.nodes), f"{r.tokens_per_s:.2f}", f"{r.stdev:.2f}",
            predicted, f"{r.gb_per_s:.1f}", f"{r.compute_ms:.2f}", f"{r.wait_ms:.2f}",
            f"{r.network_ms:.2f}",
        )  # fmt: skip
    return view
