"""The list of a router's models: the one of the package, those of the cache and of --models-dir,
and those that presets describe. Later ones replace earlier ones of the same name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.models.entry import ModelEntry
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.environment import environment_flags
from dllama.cli.flags.llama_server import taken_flags
from dllama.cli.flags.root import build_parser, model_settings
from dllama.cli.flags.router import RouterSettings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.router.model_folder import FoundModel, file_facts, models_in
from dllama.cli.router.preset_file import Presets, read_presets, shown
from dllama.cli.router.preset_keys import PresetParser, own_keys, words_of
from dllama.cli.server.api_config import answer_defaults
from dllama.cli.server.model_facts import model_id
from dllama.errors import ConfigError
from dllama.hub.found import models_here
from dllama.hub.settings import HubSettings


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the list, and the settings that it is loaded with."""

    entry: ModelEntry
    engine: EngineSettings
    server: ServerSettings


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    path: Path
    size_bytes: int
    modified_s: float
    kind: str


class ModelList:
    """Reads the list whenever it is asked. `words` are those of the command line, which count more
    than presets do; `hub` is where pulled models are."""

    def __init__(
        self, settings: RouterSettings, words: Sequence[str], hub: Callable[[], HubSettings]
    ) -> None:
        self._settings, self._hub = settings, hub
        self._parser = build_parser(PresetParser)
        self._words = tuple(words)

    def read(self) -> list[ListedModel]:
        """Returns all models there are now. Raises ConfigError where a preset cannot be used, or
        a folder or file cannot be read."""
        preset_file = self._settings.preset_file
        presets = Presets() if preset_file is None else read_presets(preset_file)
        sources = {source.name: source for source in self._found()}
        for name, keys in presets.sections.items():
            path = keys.get("model") or keys.get("m")
            if path is not None:
                sources[name] = _Source(name, Path(path), *file_facts(Path(path)), "preset")
            elif name not in sources:
                raise ConfigError(
                    f"The section [{name}] of {preset_file} names no model that is here; give its "
                    "file as model = PATH."
                )
        common = {key: value for key, value in presets.common.items() if key not in ("model", "m")}
        return [
            self._listed(source, {**common, **presets.sections.get(source.name, {})})
            for source in sources.values()
        ]

    def _found(self) -> Iterator[_Source]:
        yield _Source(
            model_id(str(DEFAULT_MODEL)), DEFAULT_MODEL, *file_facts(DEFAULT_MODEL), "package"
        )
        for local in models_here(self._hub()):
            yield _Source(local.name, local.path, local.n_bytes, local.modified_s, "cache")
        if self._settings.models_dir is not None:
            for model in models_in(self._settings.models_dir):
                yield _of_folder(model)

    def _listed(self, source: _Source, keys: Mapping[str, str]) -> ListedModel:
        own, flags = own_keys(keys)
        flags = {key: value for key, value in flags.items() if key not in ("model", "m")}
        try:
            words = [*words_of(flags, self._parser), *self._words]
            args = self._parser.parse_args([*environment_flags(os.environ), *words])
            list(taken_flags(args))
            args.model = str(source.path)
            engine, server = model_settings(args)
            defaults = answer_defaults(server.defaults)
        except ConfigError as error:
            raise ConfigError(
                f"The model {source.name!r} has a flag that is wrong: {error}"
            ) from error
        entry = ModelEntry(
            name=source.name,
            aliases=tuple(alias for alias in server.aliases if alias != source.name),
            tags=server.tags,
            source=source.kind,
            path=str(source.path),
            size_bytes=source.size_bytes,
            modified_s=source.modified_s,
            args=("--model", str(source.path), *words_of(flags, self._parser)),
            preset=shown(source.name, {"model": str(source.path), **dict(keys)}),
            defaults=defaults,
            is_pinned=own.pin,
            loads_on_startup=own.load_on_startup,
            stop_s=own.stop_timeout,
            idle_s=server.sleep_idle_s,
            can_remove=source.kind == "cache",
        )
        return ListedModel(entry, engine, server)


def _of_folder(model: FoundModel) -> _Source:
    return _Source(model.name, model.path, model.size_bytes, model.modified_s, "models_dir")
