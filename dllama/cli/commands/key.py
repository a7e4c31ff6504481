"""dllama key: a new cluster key."""

from __future__ import annotations

import argparse
from pathlib import Path

from dllama.cli.command_table import Commands
from dllama.cli.terminal.output import note
from dllama.errors import ConfigError


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "key", help=summary,
        description="Print a new cluster key. Give it to every node: dllama-root and dllama-worker "
        "take it with --cluster-key KEY|@FILE, or from $DLLAMA_CLUSTER_KEY. Nodes without it are "
        "refused.",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path,
        help="write it to a new file that only you can read, and print nothing",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cluster.security.cluster_key import new_cluster_key
    from cluster.security.keys import write_private

    text = new_cluster_key().text()
    if args.output is None:
        print(text)
        return 0
    try:
        write_private(args.output, f"{text}\n")
    except FileExistsError:
        raise ConfigError(
            f"{args.output} is there already and may hold a key that is in use; choose another "
            "name, or delete it first"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {args.output}: {error.strerror or error}") from None
    note(f"a new cluster key is in {args.output}; start every node with --cluster-key @FILE")
    return 0
