"""dllama quantize: a model file with smaller weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from dllama.cli.command_table import Commands
from dllama.cli.flags.arguments import default_threads, thread_count
from dllama.host.garbage import collector_paused
from dllama.quantizing.mixes import ALIASES, MIXES

EPILOG = f"""types: {", ".join(list(MIXES)[:14])},
  {", ".join(list(MIXES)[14:])}; {", ".join(f"{a} is {b}" for a, b in ALIASES.items())}

examples:
  dllama quantize qwen3-0.6b-bf16.gguf qwen3-0.6b-q4_k_m.gguf q4_k_m
  dllama quantize Qwen3-0.6B qwen3-0.6b-q6_k.gguf q6_k --token-embedding-type q8_0

A mix gives some matrices more bits than others, by the rules of llama-quantize without an
importance matrix. RMSE is the root of the mean squared error, in parts of the weights' own."""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "quantize", help=summary, epilog=EPILOG,
        description="Write a model, of a GGUF file or of a folder of safetensors files, as a GGUF "
        "file with smaller weights, and show how far they are from what they were.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=Path)
    parser.add_argument("out", metavar="OUT.gguf", type=Path)
    parser.add_argument("type", metavar="TYPE", help="a type or a mix of types, see below")
    _add_choices(parser)
    parser.add_argument(
        "--keep-split", action="store_true", help="write as many files as the model has parts"
    )
    parser.add_argument(
        "--dry-run", action="store_true",
        help="show what would become of the tensors, and write nothing",
    )  # fmt: skip
    parser.add_argument(
        "-t", "--threads", type=thread_count, default=default_threads(), metavar="N",
        help="compute threads (default: the cores of this machine)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.set_defaults(run=run)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that choose types."""
    parser.add_argument("--pure", action="store_true", help="give all matrices the same type")
    parser.add_argument(
        "--output-tensor-type", metavar="TYPE", help="of the matrix that the logits come from"
    )
    parser.add_argument(
        "--token-embedding-type", metavar="TYPE", help="of the table of token embeddings"
    )
    parser.add_argument(
        "--tensor-type", metavar="NAME=TYPE", action="append", default=[],
        help="of tensors in whose name this pattern is found (may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--leave-output-tensor", action="store_true",
        help="keep the matrix that the logits come from as it is",
    )  # fmt: skip
    parser.add_argument(
        "--allow-requantize", action="store_true",
        help="also take weights that are quantized already, which costs much",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    with collector_paused():
        from dllama.cli.work import quantize

    return quantize.run(args)
