"""dllama perplexity: how well a model predicts a text."""

from __future__ import annotations

import argparse
from pathlib import Path

from dllama.cli.command_table import Commands
from dllama.cli.flags.arguments import add_kv_flag, add_model_flag, add_tokenizer_flag, positive
from dllama.cli.flags.cluster import add_cluster_flags
from dllama.host.garbage import collector_paused

EPILOG = """examples:
  dllama perplexity -m model.gguf -f wiki.test.raw
  dllama perplexity -m model.gguf -f text.txt -c 256 --windows 20 --json
  dllama perplexity -m model.gguf -f text.txt --workers 10.0.0.2
  dllama perplexity -m model-f16.gguf -f text.txt --kl-divergence-base base.kld
  dllama perplexity -m model-q4.gguf --kl-divergence-base base.kld --kl-divergence

The text is cut into windows of -c tokens; the second half of each counts, as llama-perplexity has
it. Lower is better; compare only what read the same text with the same tokenizer and windows.
--kl-divergence tells how far the probabilities of all tokens are from a base model's, such as the
same one before it was quantized; llama-perplexity reads and writes the same files."""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "perplexity", help=summary, epilog=EPILOG,
        description="Measure how well a model predicts a text, on this machine or on a cluster.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_model_flag(parser)
    parser.add_argument("-f", "--file", type=Path, metavar="FILE",
                        help="the text, in UTF-8; --kl-divergence needs none")  # fmt: skip
    parser.add_argument("-c", "--ctx-size", type=positive, default=512, metavar="N",
                        help="tokens of a window (default: 512)")  # fmt: skip
    parser.add_argument("--windows", type=positive, metavar="N",
                        help="read so many windows at most (default: all)")  # fmt: skip
    add_tokenizer_flag(parser)
    parser.add_argument("--step-tokens", type=positive, default=512, metavar="N",
                        help="tokens of a step (default: 512)")  # fmt: skip
    parser.add_argument("--kl-divergence-base", "--save-all-logits", type=Path, metavar="FILE",
                        help="write the probabilities of all tokens to this file (2 bytes each), "
                        "or with --kl-divergence read them")  # fmt: skip
    parser.add_argument("--kl-divergence", action="store_true",
                        help="compare with the base model of that file")  # fmt: skip
    add_kv_flag(parser)
    parser.add_argument("--json", action="store_true", help="print an object")
    add_cluster_flags(parser)
    parser.own = ("ctx_size",)  # windows
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with collector_paused():
        from dllama.cli.work import perplexity

    return perplexity.run(args)
