"""dllama nodes: the nodes of a running server, and how one joins or leaves it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.server_address import add_server_flags, address_of
from dllama.cli.terminal.output import count_of, note, show
from dllama.errors import DllamaError

if TYPE_CHECKING:
    from rich.table import Table

TIMEOUT_S = 90.0  # longer than the server waits for its engine
PATH = "/cluster/nodes"
EXAMPLES = """examples:
  dllama nodes                              what each node does, and why one does not
  dllama nodes add 192.168.1.7              a worker that runs there takes its part
  dllama nodes add big:9998 --share 2       and a part twice as large
  dllama nodes remove 192.168.1.7:9998      ends when it may be switched off

Answers that are being written go on after a pause. The server knows its nodes until it
ends: name those that stay with --workers at its next start.
"""
STATES = {"present": "green", "joining": "cyan", "draining": "yellow", "left out": "yellow"}
AWAY = "red"
SHORT_S = (("d", 86_400), ("h", 3_600), ("min", 60))


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "nodes", help=summary,
        description="List the nodes that compute the model of a running server, take a worker in, "
        "or go on without one. Nothing stops for it.",
        epilog=EXAMPLES, formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "action", nargs="?", choices=("list", "add", "remove"), default="list",
        help="what to do",
    )  # fmt: skip
    parser.add_argument(
        "address", nargs="?", metavar="ADDRESS",
        help="the worker: host or host:port, as for --workers; dllama-worker has to run there "
        "before it is added",
    )  # fmt: skip
    parser.add_argument(
        "--share", metavar="X", type=float,
        help="its part of the model, in relation to the others' shares (default: 1)",
    )  # fmt: skip
    add_server_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the server's answer")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Returns 0 where it was done; errors of the server and of the network are raised."""
    _check(args)
    server = address_of(args)
    if args.action == "add":
        body = {"address": args.address, "share": 1.0 if args.share is None else args.share}
        answer = server.ask("POST", PATH, body, TIMEOUT_S)
    elif args.action == "remove":
        answer = server.ask("DELETE", f"{PATH}/{quote(args.address, safe='')}", None, TIMEOUT_S)
    else:
        answer = server.ask("GET", PATH, None, TIMEOUT_S)
    if args.json:
        print(json.dumps(answer, indent=1))
        return 0
    nodes = _nodes(answer)
    if args.action == "list":
        show(_table(nodes))
        for node in nodes:
            if node.get("reason"):
                print(f"{node.get('address')} is {node.get('state')}: {node['reason']}")
    else:
        done = "is taken in" if args.action == "add" else "is not used any more"
        n_others = count_of(len(nodes) - 1, "worker")
        note(f"{args.address} {done}; the root has {n_others} now (dllama nodes list)")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Ends the command, with its usage, where the words do not fit each other."""
    if args.action == "list" and args.address is not None:
        args.parser.error("list takes no address; it shows all nodes")
    if args.action != "list" and not args.address:
        args.parser.error(f"which worker? dllama nodes {args.action} HOST:PORT")
    if args.share is not None and not 0.0 < args.share < float("inf"):
        args.parser.error("--share must be a positive number")
    if args.share is not None and args.action != "add":
        args.parser.error("--share is for dllama nodes add")


def _nodes(answer: Mapping[str, object]) -> list[Mapping[str, object]]:
    nodes = answer.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise DllamaError("the server's answer names no nodes; is it an older dllama-root?")
    return nodes


def _table(nodes: list[Mapping[str, object]]) -> Table:
    """Returns a row for each node; narrow, since sentences follow below it."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("node", "rank", "state", "since", "share", "heads", "columns", "memory", "of"):
        table.add_column(
            name, justify="left" if name in ("node", "state") else "right", no_wrap=True
        )
    for node in nodes:
        state = str(node.get("state"))
        rank = node.get("rank")
        table.add_row(
            Text(str(node.get("address"))),
            "-" if rank is None else str(rank),
            Text(state, STATES.get(state, AWAY)),
            _duration(node.get("since_s")),
            f"{_number(node.get('share')):g}",
            str(node.get("kv_heads")),
            str(node.get("hidden")),
            _gigabytes(node.get("rss_bytes")),
            _gigabytes(node.get("memory_bytes")),
        )
    return table


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _gigabytes(value: object) -> str:
    return "-" if value is None else f"{_number(value) / 1e9:.1f} GB"


def _duration(seconds: object) -> str:
    value = _number(seconds)
    for unit, length in SHORT_S:
        if value >= length:
            return f"{value // length:.0f} {unit}"
    return f"{value:.0f} s"
