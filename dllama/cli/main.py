"""dllama: one program that runs, measures, inspects and talks to models."""

from __future__ import annotations

import argparse

from dllama.cli import bench, chat, inspect, root, run, up, worker
from dllama.cli.arguments import make_parser
from dllama.cli.terminal import guarded, set_up_logging

DESCRIPTION = """Run large language models on the computers you already have.

`dllama root` and `dllama worker` are the same as dllama-root and dllama-worker."""

FORWARDED = {"root": root.run, "worker": worker.run}
"""Commands with programs of their own: they read their flags themselves."""


def build_parser() -> argparse.ArgumentParser:
    parser = make_parser("dllama", DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, up, chat, bench, inspect):
        module.add_parser(commands)
    commands.add_parser("root", help="serve a model: the same as dllama-root", add_help=False)
    commands.add_parser("worker", help="compute for a root: dllama-worker", add_help=False)
    return parser


def start(argv: list[str] | None) -> int:
    import sys

    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in FORWARDED:
        return FORWARDED[words[0]](words[1:])
    args, rest = build_parser().parse_known_args(words)
    if rest and args.run is not up.run:
        build_parser().error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    set_up_logging("warning")
    code: int = args.run(args)
    return code


main = guarded(start)
