"""dllama rm: removes models that were pulled."""

from __future__ import annotations

import argparse

from dllama.cli.flags.arguments import HelpFormatter
from dllama.cli.terminal.output import complain, note
from dllama.errors import HubError
from dllama.hub.found import means, models_here
from dllama.hub.local_model import Origin
from dllama.hub.names import parse_name
from dllama.hub.settings import HubSettings, hub_settings
from dllama.hub.staging_lock import StagingLock
from dllama.hub.store import Store


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "rm", help=summary,
        description="Remove models that were pulled, and what is here of unfinished downloads. A "
        "server that has one loaded keeps it until it ends.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", metavar="NAME", nargs="+", help="as dllama list shows it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns 0 where all of them are gone."""
    settings, code = hub_settings(), 0
    for text in args.names:
        try:
            note(f"deleted {remove(settings, text)!r}")
        except HubError as error:
            complain(str(error))
            code = 1
    return code


def remove(settings: HubSettings, text: str) -> str:
    """Removes the model of a name, or what is here of it; returns its whole name. Raises HubError
    where there is none, or several."""
    name, store = parse_name(text, settings.endpoint), Store(settings.folder)
    found = [model for model in models_here(settings) if means(name, model.name)]
    pulled = [model for model in found if model.origin is Origin.PULLED]
    partly = [record for record, _ in store.unfinished() if means(name, record.name)]
    names = sorted({model.name for model in pulled} | {record.name for record in partly})
    if len(names) > 1:
        raise HubError(f"{text} means {', '.join(names)}; name one of them.")
    if not names and found:
        raise HubError(
            f"{found[0].name} is in the cache of huggingface_hub, which dllama only reads; remove "
            "it with `hf cache rm`."
        )
    if not names:
        raise HubError(f"There is no model {text!r} here; dllama list shows those that are.")
    for record in partly:
        lock = StagingLock(store.staging_of(record.id))
        if not lock.try_acquire():
            raise HubError(f"{record.name} is downloaded just now; stop that first.")
        store.discard(record.id)
        lock.release()
    for model in pulled:
        store.remove(model)
    return names[0]
