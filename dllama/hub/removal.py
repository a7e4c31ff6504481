"""Removes models from this machine, by their names."""

from __future__ import annotations

from dllama.errors import HubError, NotOnHub
from dllama.hub.found import means, models_here
from dllama.hub.local_model import Origin
from dllama.hub.names import parse_name
from dllama.hub.settings import HubSettings
from dllama.hub.staging_lock import StagingLock
from dllama.hub.store import Store


def remove_model(settings: HubSettings, text: str) -> str:
    """Removes the model of a name, or what is here of it; returns its whole name. Raises
    ModelNameError, NotOnHub where there is none here, HubError where there are several or it is
    another program's."""
    name, store = parse_name(text, settings.endpoint), Store(settings.folder)
    found = [model for model in models_here(settings) if means(name, model.name)]
    pulled = [model for model in found if model.origin is Origin.PULLED]
    partly = [receipt for receipt, _ in store.unfinished() if means(name, receipt.name)]
    names = sorted({model.name for model in pulled} | {receipt.name for receipt in partly})
    if len(names) > 1:
        raise HubError(f"{text} means {', '.join(names)}; name one of them.")
    if not names and found:
        raise HubError(
            f"{found[0].name} is in the cache of huggingface_hub, which dllama only reads; remove "
            "it with `hf cache rm`."
        )
    if not names:
        raise NotOnHub(f"There is no model {text!r} here; dllama list shows those that are.")
    for receipt in partly:
        lock = StagingLock(store.staging_of(receipt.id))
        if not lock.try_acquire():
            raise HubError(f"{receipt.name} is downloaded just now; stop that first.")
        store.discard(receipt.id)
        lock.release()
    for model in pulled:
        store.remove(model)
    return names[0]
