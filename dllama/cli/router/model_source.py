"""Where a router's models come from: files for the list, and processes for the engines."""

from __future__ import annotations

import itertools
import logging
import subprocess
from collections.abc import Iterable
from dataclasses import replace

from api.engines.zmq_client import ZmqEngineClient
from api.models.entry import ModelEngine, ModelEntry
from api.served_model import ServedModel
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.memory_need import with_pages
from dllama.cli.router.listed_model import ListedModel
from dllama.cli.router.model_list import ModelList
from dllama.cli.router.process_engine import ProcessEngine
from dllama.cli.router.spare_process import SpareProcess
from dllama.cli.server.model_facts import served_model
from dllama.logs.settings import LogSettings

log = logging.getLogger(__name__)


class CliModelSource:
    """Satisfies api.models.entry.ModelSource. `folder` is for the sockets of engines,
    `memory_bytes` what all models may take; `started` is an engine's process that waits for its
    instructions, which the first engine takes."""

    def __init__(
        self,
        models: ModelList,
        folder: str,
        memory_bytes: int,
        logs: LogSettings,
        started: subprocess.Popen[bytes] | None,
    ) -> None:
        self._list, self._folder, self._logs = models, folder, logs
        self._memory_bytes = memory_bytes
        self._spare = SpareProcess(started)
        self._models: dict[str, ListedModel] = {}
        self._faults: dict[str, str] = {}  # that were told
        self._planned: dict[str, tuple[ModelEntry, EngineSettings, int]] = {}
        self._numbers = itertools.count(1)

    def entries(self) -> list[ModelEntry]:
        found = self._list.read()
        # Those of an earlier list may be loaded still.
        self._models |= {one.entry.name: one for one in found if isinstance(one, ListedModel)}
        entries = [model.entry for model in found]
        self._tell_faults(entries)
        return entries

    def needed_bytes(self, entry: ModelEntry) -> int:
        return self._plan(entry)[2]

    def text(self, entry: ModelEntry) -> ServedModel:
        listed = self._models[entry.name]
        nobody = ZmqEngineClient("")
        named = replace(listed.engine, name=entry.name)
        server = replace(listed.server, aliases=())
        return replace(served_model(named, server, nobody), aliases=entry.aliases)

    def engine(self, entry: ModelEntry) -> ModelEngine:
        server = self._models[entry.name].server
        settings = replace(
            self._plan(entry)[1],
            name=entry.name,
            tokenizer=str(server.tokenizer) if server.tokenizer else None,
        )
        endpoint = f"ipc://{self._folder}/engine-{next(self._numbers)}"
        return ProcessEngine(settings, endpoint, self._logs, self._spare.take())

    def close(self) -> None:
        """Ends the process that waits for the next model."""
        self._spare.close()

    def _tell_faults(self, entries: Iterable[ModelEntry]) -> None:
        """Logs why models cannot be loaded, once for each reason."""
        told, self._faults = self._faults, {one.name: one.fault for one in entries if one.fault}
        for name, fault in self._faults.items():
            if told.get(name) != fault:
                log.warning("the model %s cannot be loaded: %s", name, fault)

    def _plan(self, entry: ModelEntry) -> tuple[ModelEntry, EngineSettings, int]:
        """Returns the settings with the KV pages that the model gets, and the memory it takes."""
        known = self._planned.get(entry.name)
        if known is None or known[0] != entry:
            planned = with_pages(self._models[entry.name].engine, self._memory_bytes)
            known = self._planned[entry.name] = (entry, *planned)
        return known
