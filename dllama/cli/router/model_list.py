"""The list of a router's models: the one of the package, those of the cache and of --models-dir,
and those that presets describe. Later ones replace earlier ones of the same name."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from api.models.entry import ModelEntry
from dllama.cli.flags.arguments import DEFAULT_MODEL, comma_list
from dllama.cli.flags.hub import use_hub_flags
from dllama.cli.flags.llama_server import taken_flags
from dllama.cli.flags.root import MODEL, build_parser, model_settings
from dllama.cli.flags.router import LIST_FLAGS, RouterSettings
from dllama.cli.model_name import is_name, path_of
from dllama.cli.router.file_checks import FileChecks
from dllama.cli.router.listed_model import (
    CACHE,
    AnyModel,
    FaultyModel,
    ListedModel,
    without_clashes,
    without_hidden,
)
from dllama.cli.router.model_folder import FoundModel, file_facts, models_in
from dllama.cli.router.preset_file import Presets, read_presets, shown
from dllama.cli.router.preset_keys import own_keys, preset_level, words_of_keys
from dllama.cli.server.api_config import answer_defaults
from dllama.cli.server.model_facts import model_id
from dllama.cli.sources.level import Level
from dllama.cli.sources.reading import SERVER, untyped
from dllama.cli.sources.resolve import resolve, typed
from dllama.errors import ConfigError, DllamaError, ModelFileError, NotDownloaded
from dllama.hub.found import models_here
from dllama.hub.local_model import Origin
from dllama.hub.names import without_hub
from dllama.hub.settings import HubSettings

MODEL_KEYS = frozenset({"model", "m", "hf-repo", "hf", "hfr", "hf-file", "hff", "model-url", "mu"})
ALIAS_KEYS = ("alias", "a", "LLAMA_ARG_ALIAS")
TRUSTED = ("package", CACHE)  # kinds of sources whose files were checked when they came


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    path: Path
    size_bytes: int
    modified_s: float
    kind: str
    whole_name: str = ""  # of one that was pulled, or that another program has pulled
    can_remove: bool = False


@dataclass(frozen=True, slots=True)
class _Flags:
    """What is set for a model: its section of the presets, the section of all, and what is set
    elsewhere, the last of less weight than presets."""

    section: Mapping[str, str]
    common: Mapping[str, str]
    around: Callable[[], Sequence[Level]]


class ModelList:
    """Reads the list whenever it is asked. `words` are those of the command line, which count more
    than presets do; `hub` is where pulled models are."""

    def __init__(
        self, settings: RouterSettings, words: Sequence[str], hub: Callable[[], HubSettings]
    ) -> None:
        self._settings, self._hub = settings, hub
        self._parser = build_parser()
        self._parser.raises = True
        self._files = FileChecks()
        self._words = tuple(words)

    def read(self) -> list[AnyModel]:
        """Returns all models there are now; what one of them lacks is said in its entry. Raises
        ConfigError where a folder or the preset file cannot be read, or flags of all models are
        wrong."""
        preset_file = self._settings.preset_file
        presets = Presets() if preset_file is None else read_presets(preset_file)
        found = {source.name: source for source in self._found()}
        common = {key: value for key, value in presets.common.items() if key not in MODEL_KEYS}
        of_all = _Flags({}, common, functools.cache(self._around_presets))
        self._check_common(of_all)
        sections = {without_hub(name): keys for name, keys in presets.sections.items()}
        broken = {without_hub(name): line for name, line in presets.broken.items()}
        listed = [
            self._tried(
                name,
                found.get(name),
                replace(of_all, section=sections.get(name, {})),
                broken.get(name, ""),
            )
            for name in dict.fromkeys((*found, *sections))
        ]
        return without_clashes(without_hidden(listed))

    def _check_common(self, of_all: _Flags) -> None:
        """Raises ConfigError where a model without a section could not be loaded: no other could
        either."""
        try:
            args = self._resolved(of_all)
            args.model = str(DEFAULT_MODEL)
            answer_defaults(model_settings(args)[1].defaults)
        except DllamaError as error:
            raise ConfigError(f"A flag of all models is wrong: {error}") from error

    def _tried(self, name: str, found: _Source | None, flags: _Flags, broken_line: str) -> AnyModel:
        """Returns a model of the list, with its fault where it cannot be loaded."""
        is_here = True
        try:
            if broken_line:
                raise ConfigError(broken_line)
            return self._listed(name, found, flags)
        except NotDownloaded as error:
            is_here, fault = False, _how_to_download(error.name)
        except ModelFileError as error:
            fault = str(error)
        except DllamaError as error:
            fault = f"Its section in {self._settings.preset_file} cannot be used: {error}"
        source = found or _Source(name, Path(), 0, 0.0, "preset")
        aliases = comma_list(next((flags.section[k] for k in ALIAS_KEYS if k in flags.section), ""))
        return FaultyModel(ModelEntry(
            name=name,
            aliases=_other_names(name, *aliases, source.whole_name),
            source=source.kind,
            path="" if found is None else str(source.path),
            size_bytes=source.size_bytes,
            modified_s=source.modified_s,
            preset=shown(name, flags.section) if flags.section else "",
            can_remove=source.can_remove,
            fault=fault,
            is_downloaded=is_here,
        ))  # fmt: skip

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

    def _listed(self, name: str, found: _Source | None, flags: _Flags) -> ListedModel:
        """Returns a model of the list. Raises DllamaError where it cannot be loaded."""
        own, keys = own_keys({**flags.common, **flags.section})
        args = self._resolved(flags)
        source = _named_source(name, args) or found or _source_called(name)
        args.model, args.model_name = str(source.path), name
        engine, server = model_settings(args)
        defaults = answer_defaults(server.defaults)
        if source.kind not in TRUSTED:
            fault = self._files.fault_of(source.path, source.size_bytes, source.modified_s)
            if fault:
                raise ModelFileError(fault)
        keys = {key: value for key, value in keys.items() if key not in MODEL_KEYS}
        return ListedModel(
            ModelEntry(
                name=name,
                aliases=_other_names(name, *server.aliases, source.whole_name),
                tags=server.tags,
                source=source.kind,
                path=str(source.path),
                size_bytes=source.size_bytes,
                modified_s=source.modified_s,
                args=("--model", str(source.path), *words_of_keys(keys, self._parser)),
                preset=shown(name, {"model": str(source.path), **keys}),
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

    def _resolved(self, flags: _Flags) -> argparse.Namespace:
        """Returns the flags of a model. Raises ConfigError."""
        sections = (flags.section, flags.common)
        presets = [preset_level(own_keys(keys)[1], self._parser) for keys in sections]
        *above, below = flags.around()
        args = resolve(self._parser, [*above, *presets, below]).args
        list(taken_flags(args))
        use_hub_flags(args)
        return args

    def _around_presets(self) -> Sequence[Level]:
        """Returns what is set elsewhere for all models, the last of less weight than presets."""
        parser = self._parser
        return [
            {dest: found for dest, found in level.items() if dest not in LIST_FLAGS | MODEL}
            for level in (typed(parser, self._words)[0], *untyped(parser, SERVER))
        ]  # only a section names a model of the list


def _named_source(name: str, args: argparse.Namespace) -> _Source | None:
    """Returns the model that flags name by its path or as it was pulled, None where they name none.
    Raises NotDownloaded where it is not here."""
    if args.draft_model is not None and is_name(args.draft_model):
        args.draft_model = path_of(args.draft_model, pulls=False) or args.draft_model
    if args.model is None:
        return None
    path = Path((is_name(args.model) and path_of(args.model, pulls=False)) or args.model)
    return _of_path(name, path)


def _source_called(name: str) -> _Source:
    """Returns the pulled model that is called as a section is. Raises NotDownloaded where it is not
    here, ConfigError where no model can be called so."""
    path = path_of(name, pulls=False)
    if path is None:
        raise ConfigError(f"it names no model; write model = PATH in [{name}].")
    return _of_path(name, Path(path))


def _of_path(name: str, path: Path) -> _Source:
    return _Source(name, path, *file_facts(path), "preset")


def _how_to_download(name: str) -> str:
    return (
        f"{name} is not on this machine; POST /models {json.dumps({'model': name})} downloads it, "
        "or run `dllama pull` there and read the list again with GET /models?reload=1."
    )


def _other_names(name: str, *others: str) -> tuple[str, ...]:
    return tuple(other for other in dict.fromkeys(others) if other not in ("", name))


def _of_folder(model: FoundModel) -> _Source:
    return _Source(model.name, model.path, model.size_bytes, model.modified_s, "models_dir")
