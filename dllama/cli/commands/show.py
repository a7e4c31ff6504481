"""dllama show: what is known of a model that is on this machine."""

from __future__ import annotations

import argparse
import json

from dllama.cli.command_table import Commands
from dllama.cli.commands.list import as_json
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.terminal.output import show
from dllama.cli.terminal.sizes import size_of
from dllama.errors import HubError
from dllama.hub.found import find_here
from dllama.hub.local_model import LocalModel
from dllama.hub.names import parse_name
from dllama.hub.settings import hub_settings


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "show", help=summary,
        description="Show where a model of this machine came from, its files with their digests, "
        "and what dllama inspect tells of it.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", help="as dllama list shows it")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.inspect.describe import describe
    from dllama.inspect.render import render

    settings = hub_settings()
    model = find_here(settings, parse_name(args.name, settings.endpoint))
    if model is None:
        raise HubError(
            f"There is no model {args.name!r} here; dllama list shows those that are, and dllama "
            f"pull {args.name} downloads it."
        )
    facts = describe(str(model.path))
    files = [{"path": f.path, "bytes": f.n_bytes, "checksum": f.checksum} for f in model.files]
    if args.json:
        print(json.dumps({**as_json(model), "files": files, "facts": facts.as_json()}, indent=1))
        return 0
    for line in _lines(model):
        print(line)
    show(render(facts))
    return 0


def _lines(model: LocalModel) -> list[str]:
    revision = f", revision {model.revision[:12]}" if model.revision else ""
    head = f"{model.name}  {model.id}  from {model.origin}{revision}"
    rows = [f"  {size_of(f.n_bytes):>9}  {f.checksum}  {f.path}" for f in model.files]
    return [head, *rows, ""]
