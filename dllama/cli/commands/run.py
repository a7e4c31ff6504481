"""dllama run: one prompt, one answer on stdout, everything else on stderr."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.arguments import add_keep_flag, add_length_flag, add_text_flags
from dllama.cli.flags.engine import add_engine_flags
from dllama.cli.flags.sampling import add_sampling_flags
from dllama.host.garbage import collector_paused

EPILOG = """examples:
  dllama run -m model.gguf "What is a tensor?"
  dllama run -m model.gguf --raw "Once upon a time" --temperature 0 -n 100
  cat notes.txt | dllama run -m model.gguf "Summarise this:"
  cat notes.txt | dllama -m model.gguf -p "Summarise this:"     # the same"""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "run", help=summary, epilog=EPILOG,
        description="Answer one prompt: the answer goes to stdout, all else to stderr.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_engine_flags(parser)
    parser.add_argument(
        "words", nargs="*", metavar="prompt",
        help="the prompt; - is standard input, which is read anyway where text is piped",
    )  # fmt: skip
    ask = parser.add_argument_group("answer")
    ask.add_argument("--raw", action="store_true", help="continue the text: no chat template")
    ask.add_argument("--system", metavar="TEXT", help="a system message")
    ask.add_argument("-p", "--prompt", metavar="TEXT", help="the prompt, before its other words")
    add_length_flag(ask)
    add_keep_flag(ask)
    add_text_flags(ask)
    ask.add_argument(
        "-v", "--verbose", action="store_true", help="tell tokens per second at the end"
    )
    add_sampling_flags(parser)
    parser.own = ("verbose",)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with collector_paused():
        from dllama.cli.work import run

    return run.run(args)
