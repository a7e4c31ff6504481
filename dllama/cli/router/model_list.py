"""The list of a router's models: the one of the package, those of the cache and of --models-dir,
and those that presets describe. Later ones replace earlier ones of the same name."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from api.models.entry import ModelEntry
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.hub import use_hub_flags
from dllama.cli.flags.llama_server import taken_flags
from dllama.cli.flags.root import MODEL, build_parser, model_settings
from dllama.cli.flags.router import LIST_FLAGS, RouterSettings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.model_name import is_name, path_of
from dllama.cli.router.model_folder import FoundModel, file_facts, models_in
from dllama.cli.router.preset_file import Presets, read_presets, shown
from dllama.cli.router.preset_keys import own_keys, preset_level, words_of_keys
from dllama.cli.server.api_config import answer_defaults
from dllama.cli.server.model_facts import model_id
from dllama.cli.sources.level import Level
from dllama.cli.sources.reading import SERVER, untyped
from dllama.cli.sources.resolve import resolve, typed
from dllama.errors import ConfigError, DllamaError
from dllama.hub.found import models_here
from dllama.hub.local_model import Origin
from dllama.hub.names import without_hub
from dllama.hub.settings import HubSettings

CACHE = "cache"
MODEL_KEYS = frozenset({"model", "m", "hf-repo", "hf", "hfr", "hf-file", "hff", "model-url", "mu"})


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the list, and the settings that it is loaded with."""

    entry: ModelEntry
    engine: EngineSettings
    server: ServerSettings
    hides_cached: bool = False  # it stands for the model of the cache that has its file


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    path: Path
    size_bytes: int
    modified_s: float
    kind: str
    whole_name: str = ""  # of one that was pulled, or that another program has pulled
    can_remove: bool = False


class ModelList:
    """Reads the list whenever it is asked. `words` are those of the command line, which count more
    than presets do; `hub` is where pulled models are."""

    def __init__(
        self, settings: RouterSettings, words: Sequence[str], hub: Callable[[], HubSettings]
    ) -> None:
        self._settings, self._hub = settings, hub
        self._parser = build_parser()
        self._parser.raises = True
        self._words = tuple(words)

    def read(self) -> list[ListedModel]:
        """Returns all models there are now. Raises ConfigError where a preset cannot be used, or
        a folder or file cannot be read."""
        preset_file = self._settings.preset_file
        presets = Presets() if preset_file is None else read_presets(preset_file)
        found = {source.name: source for source in self._found()}
        common = {key: value for key, value in presets.common.items() if key not in MODEL_KEYS}
        around = functools.cache(self._around_presets)
        sections = {without_hub(name): keys for name, keys in presets.sections.items()}
        listed = [
            self._listed(name, found.get(name), sections.get(name, {}), common, around)
            for name in dict.fromkeys((*found, *sections))
        ]
        return without_hidden(listed)

    def _found(self) -> Iterator[_Source]:
        yield _Source(
            model_id(str(DEFAULT_MODEL)), DEFAULT_MODEL, *file_facts(DEFAULT_MODEL), "package"
        )
        for local in models_here(self._hub()):
            yield _Source(
                without_hub(local.name), local.path, local.n_bytes, local.modified_s, CACHE,
                local.name, local.origin is Origin.PULLED,
            )  # fmt: skip
        if self._settings.models_dir is not None:
            for model in models_in(self._settings.models_dir):
                yield _of_folder(model)

    def _listed(
        self,
        name: str,
        found: _Source | None,
        section: Mapping[str, str],
        common: Mapping[str, str],
        around: Callable[[], Sequence[Level]],
    ) -> ListedModel:
        own, flags = own_keys({**common, **section})
        try:
            presets = [preset_level(own_keys(keys)[1], self._parser) for keys in (section, common)]
            *above, below = around()
            args = resolve(self._parser, [*above, *presets, below]).args
            list(taken_flags(args))
            use_hub_flags(args)
            source = _named_source(name, args) or found
            if source is None:
                raise ConfigError(
                    f"It names no model that is here; write model = PATH in [{name}]."
                )
            args.model, args.model_name = str(source.path), name
            engine, server = model_settings(args)
            defaults = answer_defaults(server.defaults)
        except DllamaError as error:
            raise ConfigError(f"The model {name!r} has a flag that is wrong: {error}") from error
        flags = {key: value for key, value in flags.items() if key not in MODEL_KEYS}
        return ListedModel(
            ModelEntry(
                name=name,
                aliases=tuple(
                    alias
                    for alias in dict.fromkeys((*server.aliases, source.whole_name))
                    if alias not in ("", name)
                ),
                tags=server.tags,
                source=source.kind,
                path=str(source.path),
                size_bytes=source.size_bytes,
                modified_s=source.modified_s,
                args=("--model", str(source.path), *words_of_keys(flags, self._parser)),
                preset=shown(name, {"model": str(source.path), **flags}),
                defaults=defaults,
                is_pinned=own.pin,
                loads_on_startup=own.load_on_startup,
                stop_s=own.stop_timeout,
                idle_s=server.sleep_idle_s,
                can_remove=source.can_remove,
            ),
            engine,
            server,
            own.dedup_cache_models,
        )

    def _around_presets(self) -> Sequence[Level]:
        """Returns what is set elsewhere for all models, the last of less weight than presets."""
        parser = self._parser
        return [
            {dest: found for dest, found in level.items() if dest not in LIST_FLAGS | MODEL}
            for level in (typed(parser, self._words)[0], *untyped(parser, SERVER))
        ]  # only a section names a model of the list


def without_hidden(models: Sequence[ListedModel]) -> list[ListedModel]:
    """Returns the models without those of the cache that a preset stands for, whose names become
    further ones of it."""
    stands = {m.entry.path: m for m in models if m.hides_cached and m.entry.source != CACHE}
    hidden = [m.entry for m in models if m.entry.source == CACHE and m.entry.path in stands]
    more = {stands[entry.path].entry.name: entry.names for entry in hidden}
    return [
        replace(m, entry=replace(m.entry, aliases=(*m.entry.aliases, *more.get(m.entry.name, ()))))
        for m in models
        if m.entry not in hidden
    ]


def _named_source(name: str, args: argparse.Namespace) -> _Source | None:
    """Returns the model that flags name by its path or as it was pulled, None where they name none.
    Raises ConfigError where it is not here."""
    if args.draft_model is not None and is_name(args.draft_model):
        args.draft_model = path_of(args.draft_model, pulls=False) or args.draft_model
    if args.model is None:
        return None
    path = Path((is_name(args.model) and path_of(args.model, pulls=False)) or args.model)
    return _Source(name, path, *file_facts(path), "preset")


def _of_folder(model: FoundModel) -> _Source:
    return _Source(model.name, model.path, model.size_bytes, model.modified_s, "models_dir")
