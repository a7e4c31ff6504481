"""dllama bench: prefill and decode throughput, with llama-bench's definitions."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from rich.table import Table

from dllama.bench import Bench, Result, tests
from dllama.cli.build import build_runner
from dllama.cli.flags.arguments import (
    add_kv_flag,
    add_model_flag,
    add_quantize_flag,
    comma_list,
    positive,
)
from dllama.cli.flags.cluster import add_cluster_flags
from dllama.cli.flags.engine import runner_settings
from dllama.cli.flags.settings import MAX_BATCH
from dllama.cli.model_file import trained_context
from dllama.cli.terminal.output import is_terminal, loading, note, show, stderr
from dllama.errors import ConfigError
from kernels.cpu import cpu_name, isa

EPILOG = """examples:
  dllama bench -m model.gguf
  dllama bench -m model.gguf -p 512,4096 -n 128 -d 0,4096 -b 1,16 -t 2 --json
  dllama bench -m model.gguf --workers 10.0.0.2

ppN is N tokens of prompt, tgN is N tokens decoded one by one; @dN after N tokens of context, xN
with N sequences side by side. GB/s counts the weights that are read. What is predicted is so of
planned machines (dllama plan) and one sequence."""


def number_list(text: str) -> list[int]:
    """An argparse type: whole numbers between commas."""
    try:
        numbers = [int(word) for word in comma_list(text)]
    except ValueError:
        numbers = [-1]
    if not numbers or min(numbers) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers")
    return numbers


def batch_list(text: str) -> list[int]:
    """An argparse type: numbers of sequences between commas."""
    numbers = number_list(text)
    if not 1 <= min(numbers) <= max(numbers) <= MAX_BATCH:
        raise argparse.ArgumentTypeError(f"{text!r}: batches have 1 to {MAX_BATCH} sequences")
    return numbers


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "bench", help=summary, epilog=EPILOG,
        description="Measure a model's speed on this machine, or on a cluster.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_model_flag(parser)
    add_quantize_flag(parser)
    parser.add_argument("-p", "--n-prompt", type=number_list, default=[512], metavar="N,...",
                        help="prompt lengths (default: 512; 0 for none)")  # fmt: skip
    parser.add_argument("-n", "--n-gen", type=number_list, default=[128], metavar="N,...",
                        help="tokens to decode (default: 128; 0 for none)")  # fmt: skip
    parser.add_argument("-d", "--n-depth", type=number_list, default=[0], metavar="N,...",
                        help="tokens of context before (default: 0)")  # fmt: skip
    parser.add_argument("-b", "--batch", type=batch_list, default=[1], metavar="N,...",
                        help="sequences side by side (default: 1)")  # fmt: skip
    parser.add_argument("-r", "--repeats", type=positive, default=5, metavar="N")
    parser.add_argument("--step-tokens", type=positive, default=512, metavar="N",
                        help="prompt tokens of a step (default: 512)")  # fmt: skip
    add_kv_flag(parser)
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    add_cluster_flags(parser)
    parser.set_defaults(run=run)


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
