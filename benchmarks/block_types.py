"""Every type of weights: decode and prompt of one shape beside llama.cpp's, the same file in turn.

    python -m benchmarks.block_types --llama-bench build/bin/llama-bench --rounds 3

Models are random weights, written to .cache/bench once. Each program is started anew for each round
of each type, ours first and theirs first by turns; the table has medians and ratios. Results go to
benchmarks/results as JSON, and --add puts further rounds into a file of these.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.compare import RESULTS, ROOT, model_file
from dllama.cli.flags.arguments import comma_list
from kernels.cpu import cpu_name, isa

TYPES = "F16,BF16,Q8_0,Q6_K,Q5_K,Q5_1,Q5_0,Q4_K,Q4_1,Q4_0,IQ4_NL,IQ4_XS,MXFP4,Q3_K,IQ3_S,Q2_K,IQ2_S"

Speeds = dict[str, float]  # tokens/s by test
Rounds = dict[str, list[list[Speeds]]]  # by type: of each round ours and theirs


def our_speeds(path: Path, args: argparse.Namespace) -> Speeds:
    command = [
        sys.executable, "-m", "dllama", "bench", "-m", path, "-p", args.prompt, "-n", args.decode,
        "-t", args.threads, "-r", args.repeats, "--json",
    ]  # fmt: skip
    rows = json.loads(output_of([str(word) for word in command]))
    return {row["test"][:2]: row["tokens_per_s"] for row in rows}


def their_speeds(path: Path, args: argparse.Namespace) -> Speeds:
    command = [
        args.llama_bench, "-m", path, "-p", args.prompt, "-n", args.decode, "-t", args.threads,
        "-r", args.repeats, "-o", "json",
    ]  # fmt: skip
    rows = json.loads(output_of([str(word) for word in command]))
    return {"tg" if row["n_gen"] else "pp": row["avg_ts"] for row in rows}


def output_of(command: Sequence[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def measured(args: argparse.Namespace, rounds: Rounds) -> Rounds:
    """Adds rounds to those there are."""
    for _ in range(args.rounds):
        for name in args.types:
            path, before = model_file(args.shape, name), rounds.setdefault(name, [])
            programs = [our_speeds, their_speeds]
            order = (0, 1) if len(before) % 2 == 0 else (1, 0)
            found = {which: programs[which](path, args) for which in order}
            before.append([found[0], found[1]])
            print(name, found, file=sys.stderr, flush=True)
    return rounds


def median_ratio(rounds: list[list[Speeds]], test: str) -> float:
    return statistics.median(ours[test] / theirs[test] for ours, theirs in rounds)


def table(rounds: Rounds, title: str) -> Table:
    view = Table(title=title, title_justify="left")
    for name in ("type", "rounds", "prompt", "llama.cpp", "ratio", "decode", "llama.cpp", "ratio"):
        view.add_column(name, justify="left" if name == "type" else "right")
    for name, found in rounds.items():
        cells = [name, str(len(found))]
        for test in ("pp", "tg"):
            ours, theirs = (
                statistics.median(pair[which][test] for pair in found) for which in (0, 1)
            )
            cells += [f"{ours:.1f}", f"{theirs:.1f}", f"{median_ratio(found, test):.2f}"]
        view.add_row(*cells)
    return view


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llama-bench", type=Path, required=True, help="llama.cpp's program")
    parser.add_argument("--shape", default="qwen3-0.6b", help="see benchmarks.random_model")
    parser.add_argument("--types", type=comma_list, default=comma_list(TYPES))
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=32, help="tokens that are decoded")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="of each program in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--add", type=Path, metavar="FILE", help="results to add rounds to")
    parser.add_argument("--write-models", action="store_true", help="write them, and end")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    if args.write_models:
        for name in args.types:
            model_file(args.shape, name)
        return
    known = json.loads(args.add.read_text()) if args.add and args.add.exists() else {}
    rounds = measured(args, known.get("rounds", {}))
    date = datetime.date.today().isoformat()
    facts = {
        "date": date, "cpu": cpu_name(), "isa": isa(), "threads": args.threads,
        "shape": args.shape, "prompt": args.prompt, "decode": args.decode, "rounds": rounds,
    }  # fmt: skip
    path = args.add or RESULTS / f"{isa()}-{args.threads}-{date}-every-type.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    title = f"{args.shape}, pp{args.prompt} and tg{args.decode}, {args.threads} threads, tokens/s"
    Console().print(table(rounds, title))


if __name__ == "__main__":
    main()
