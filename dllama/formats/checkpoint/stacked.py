"""A tensor of several experts that a checkpoint has one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.formats.mapped_source import Stored
from dllama.weight_source import TensorInfo


@dataclass(frozen=True, slots=True)
class Stacked:
    """The matrices of all experts, one after the other."""

    info: TensorInfo
    parts: tuple[Stored, ...]

    def read(self, rows: range, cols: range) -> np.ndarray:
        return np.concatenate([part.read(rows, cols) for part in self.parts])

    def release(self) -> None:
        for part in self.parts:
            part.release()
