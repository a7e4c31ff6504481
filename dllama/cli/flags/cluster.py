"""The flags of machines and of the links between them."""

from __future__ import annotations

import argparse
from typing import Literal

from cluster.security.cluster_key import parse_cluster_key
from dllama.cli.flags.arguments import (
    comma_list,
    default_threads,
    own_address,
    thread_count,
    worker_list,
)
from dllama.errors import ConfigError

AUTO = "auto"
EQUAL: Literal["equal"] = "equal"
Shares = tuple[float, ...] | Literal["equal"]


def share_list(text: str) -> Shares:
    """An argparse type: positive numbers between commas, none for `auto`, or `equal`."""
    if text == EQUAL:
        return EQUAL
    if text == AUTO:
        return ()
    try:
        shares = tuple(float(word) for word in comma_list(text))
    except ValueError:
        shares = ()
    if not shares or any(not s > 0 or s == float("inf") for s in shares):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither {AUTO} nor {EQUAL} nor a list of positive numbers such as 3,2,1: "
            "one for the root, then one for each worker"
        )
    return shares


def shares_of(args: argparse.Namespace) -> tuple[float, ...]:
    """Returns the shares that were given, none where they are to be planned. Raises ConfigError
    where flags do not fit each other."""
    n_nodes = len(args.workers) + 1
    shares: tuple[float, ...] = (1.0,) * n_nodes if args.shares == EQUAL else args.shares
    if shares and args.use_all:
        raise ConfigError(
            f"--use-all is for planned shares (--shares {AUTO}); given ones use every machine "
            "anyway"
        )
    if shares and len(shares) != n_nodes:
        raise ConfigError(
            f"--shares names {len(shares)} machines, but there are {n_nodes}: "
            "this one first, then each of --workers in order"
        )
    return shares


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --workers and the flags of the cluster."""
    cluster = parser.add_argument_group("machines")
    cluster.add_argument(
        "-t", "--threads", metavar="N", type=thread_count, default=default_threads(),
        help="compute threads on this machine; workers say their own",
    )  # fmt: skip
    cluster.add_argument(
        "-w", "--workers", metavar="HOST[:PORT],...", type=worker_list, default=(),
        help="machines that run dllama-worker; this one computes too",
    )  # fmt: skip
    cluster.add_argument(
        "--shares", metavar="auto|equal|A,B,...", type=share_list, default=(),
        help="how much of the model each machine holds, this one first: 3,2,1. auto: measured and "
        "planned, and a machine that would slow the others down is left out (default: auto)",
    )  # fmt: skip
    cluster.add_argument(
        "--use-all", action="store_true",
        help="with planned shares, leave no machine out; see dllama plan",
    )  # fmt: skip
    cluster.add_argument(
        "--sync-type", choices=("exact", "f32", "bf16", "q80"), default="exact",
        help="how partial sums travel: exact gives the same bits on any number of nodes and is as "
        "large as f32; bf16 is half, q80 a quarter of that",
    )  # fmt: skip
    cluster.add_argument(
        "--advertise", metavar="HOST", type=own_address,
        help="how workers reach this machine, where they cannot find out by themselves",
    )  # fmt: skip
    add_security_flags(cluster)


def add_security_flags(parser: argparse._ActionsContainer) -> None:
    """Adds the flags of the links between machines, which every node has."""
    add_key_flag(parser)
    parser.add_argument(
        "--no-encrypt", action="store_true",
        help="leave links to other machines plain: prompts, answers and weights can be read on the "
        "network. Every node has to say so",
    )  # fmt: skip


def add_key_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --cluster-key."""
    parser.add_argument(
        "--cluster-key", metavar="KEY|@FILE", type=cluster_key,
        help="what `dllama key` printed, or a file that holds it: only nodes with the same key are "
        "spoken to",
    )  # fmt: skip


def cluster_key(text: str) -> str:
    """An argparse type: a cluster key or @FILE; returns the key. Errors do not repeat it."""
    try:
        return parse_cluster_key(text).text()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
