"""dllama list: the models that are on this machine."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.terminal.output import note, show
from dllama.cli.terminal.sizes import size_of
from dllama.hub.found import models_here
from dllama.hub.local_model import LocalModel
from dllama.hub.settings import hub_settings
from dllama.hub.store import Store

if TYPE_CHECKING:
    from rich.table import Table

_AGES = (("year", 31_536_000), ("month", 2_592_000), ("week", 604_800), ("day", 86_400),
         ("hour", 3600), ("minute", 60))  # fmt: skip


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "list", help=summary,
        description="List the models that -m takes by their names: those that were pulled, and "
        "those in the cache of huggingface_hub.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings = hub_settings()
    models = models_here(settings)
    if args.json:
        print(json.dumps({"models": [as_json(model) for model in models]}, indent=1))
        return 0
    show(_table(models))
    for receipt, n_bytes in Store(settings.folder).unfinished():
        note(
            f"{size_of(n_bytes)} of {size_of(receipt.n_bytes)} of {receipt.name} are here: dllama "
            "pull goes on with it, dllama rm removes it"
        )
    return 0


def as_json(model: LocalModel) -> dict[str, object]:
    """Returns a model for programs."""
    return {
        "name": model.name, "id": model.id, "bytes": model.n_bytes, "modified": model.modified_s,
        "path": str(model.path), "origin": str(model.origin), "revision": model.revision,
    }  # fmt: skip


def _table(models: list[LocalModel]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("NAME", "ID", "SIZE", "MODIFIED", "FROM"):
        table.add_column(name, justify="right" if name == "SIZE" else "left", no_wrap=True)
    for model in models:
        table.add_row(
            Text(model.name), model.id, size_of(model.n_bytes),
            age_of(model.modified_s, time.time()), str(model.origin),
        )  # fmt: skip
    return table


def age_of(then_s: float, now_s: float) -> str:
    """Returns how long ago something was."""
    for unit, length in _AGES:
        n = int((now_s - then_s) // length)
        if n > 0:
            return f"{n} {unit}{'s' * (n > 1)} ago"
    return "just now"
