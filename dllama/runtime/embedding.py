"""Embedding rows, read from the mapped file as they are needed: no rank holds the table."""

from __future__ import annotations

import numpy as np

from dllama.qtypes import QType
from dllama.weight_source import WeightSource


class EmbeddingTable:
    """Raw rows of the embedding by token id. The file's pages stay the system's to take back."""

    def __init__(self, source: WeightSource) -> None:
        self.qtype: QType = source.tensors["embed"].qtype
        self._table = source.read("embed")  # (vocab_size, row bytes): a view of the file

    def rows(self, tokens: np.ndarray) -> np.ndarray:
        """uint8 (T, bytes of a row) for int32 tokens (T,)."""
        rows: np.ndarray = self._table[tokens]
        return rows
