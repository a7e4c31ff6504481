"""Tokenizers, chat templates and facts of a router's models: read when they are needed, and kept
for a few models."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from api.models.entry import ModelEntry, ModelSource
from api.served_model import ServedModel

MAX_KEPT = 8  # a vocabulary takes some 50 MB


class ModelTexts:
    """The text of models, by their names. An engine of its own has none of them."""

    def __init__(self, source: ModelSource) -> None:
        self._source = source
        self._kept: OrderedDict[str, tuple[ModelEntry, ServedModel]] = OrderedDict()
        self._reading: dict[str, asyncio.Lock] = {}

    def known(self, entry: ModelEntry) -> ServedModel | None:
        """Returns a model that was read before and is kept."""
        kept = self._kept.get(entry.name)
        return kept[1] if kept is not None and kept[0] == entry else None

    async def read(self, entry: ModelEntry) -> ServedModel:
        """Returns a model, read once for all who ask. Raises DllamaError."""
        async with self._reading.setdefault(entry.name, asyncio.Lock()):
            model = self.known(entry)
            if model is None:
                model = await asyncio.to_thread(self._source.text, entry)
                self._kept[entry.name] = (entry, model)
            self._kept.move_to_end(entry.name)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
            return model

    def forget(self) -> None:
        """Forgets all that was read."""
        self._kept.clear()
        self._reading.clear()
