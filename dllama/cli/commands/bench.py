"""dllama bench: prefill and decode throughput, with llama-bench's definitions."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.arguments import (
    add_kv_flag,
    add_model_flag,
    add_quantize_flag,
    comma_list,
    positive,
)
from dllama.cli.flags.cluster import add_cluster_flags
from dllama.cli.flags.settings import MAX_BATCH
from dllama.host.garbage import collector_paused

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


def add_parser(commands: Commands, summary: str) -> None:
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
    with collector_paused():
        from dllama.cli.work import bench

    return bench.run(args)
