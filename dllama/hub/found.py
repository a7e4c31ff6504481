"""The models that are on this machine, and the one that a name means."""

from __future__ import annotations

from dllama.hub.hub_cache import cached_models
from dllama.hub.local_model import LocalModel
from dllama.hub.names import HubName, ModelName, UrlName
from dllama.hub.settings import HubSettings
from dllama.hub.store import Store
from dllama.hub.web_rules import without_query


def models_here(settings: HubSettings) -> list[LocalModel]:
    """Returns every model that can be used by its name: those that were pulled, the newest first,
    then those of the hub's cache that were not."""
    pulled = Store(settings.folder).models()
    names = {model.name for model in pulled}
    return pulled + [m for m in cached_models(settings.cache) if m.name not in names]


def find_here(settings: HubSettings, name: ModelName) -> LocalModel | None:
    """Returns the model of a name; without a type the repository's that was pulled last."""
    for models in (Store(settings.folder).models, lambda: cached_models(settings.cache)):
        found = next((model for model in models() if means(name, model.name)), None)
        if found is not None:
            return found
    return None


def means(name: ModelName, whole_name: str) -> bool:
    """Returns whether a name means the model that has this whole name."""
    if isinstance(name, UrlName):
        return without_query(name.url) == whole_name
    if isinstance(name, HubName) and not name.tag and not name.file:
        return whole_name.rpartition(":")[0].lower() == str(name).lower()
    return str(name).lower() == whole_name.lower()
