"""dllama ps: the models that a running server has loaded."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.server_address import add_server_flags, address_of
from dllama.cli.terminal.output import show
from dllama.cli.terminal.sizes import size_of
from dllama.errors import DllamaError

TIMEOUT_S = 30.0
FOREVER_S = 10 * 365 * 86_400


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "ps", help=summary,
        description="List the models that a running server has in memory.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_server_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the server's answer")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    answer = address_of(args).ask("GET", "/api/ps", None, TIMEOUT_S)
    if args.json:
        print(json.dumps(answer, indent=1))
        return 0
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"):
        table.add_column(name, no_wrap=True)
    now = datetime.now(UTC)
    for model in _models(answer):
        table.add_row(
            Text(str(model.get("name"))), str(model.get("digest"))[:12],
            size_of(model.get("size")), "100% CPU", str(model.get("context_length", "-")),
            until(model.get("expires_at"), now),
        )  # fmt: skip
    show(table)
    return 0


def _models(answer: Mapping[str, object]) -> list[Mapping[str, object]]:
    models = answer.get("models")
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        raise DllamaError("the server's answer names no models; is it a dllama-root?")
    return models


def until(moment: object, now: datetime) -> str:
    """Returns when a model is unloaded, as people say it."""
    try:
        left_s = (datetime.fromisoformat(str(moment)) - now).total_seconds()
    except (ValueError, TypeError):
        return "-"
    if left_s > FOREVER_S:
        return "Forever"
    if left_s <= 0:
        return "Stopping..."
    for unit, length in (("hour", 3600), ("minute", 60)):
        if left_s >= length:
            n = round(left_s / length)
            return f"{n} {unit}{'s' * (n > 1)} from now"
    return f"{left_s:.0f} seconds from now"
