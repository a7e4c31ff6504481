"""How far quantized weights are from those they were made of, by kind of tensor."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import numpy as np

from dllama.qtypes import QType

_LAYER = re.compile(r"^blk\.\d+\.")


@dataclass(slots=True)
class ErrorSums:
    """Sums over values: how many, their squares, the squares of their errors, and the largest
    error."""

    n_values: int = 0
    squares: float = 0.0
    error_squares: float = 0.0
    largest: float = 0.0

    def add(self, other: ErrorSums) -> None:
        self.n_values += other.n_values
        self.squares += other.squares
        self.error_squares += other.error_squares
        self.largest = max(self.largest, other.largest)

    @property
    def rmse(self) -> float:
        return math.sqrt(self.error_squares / self.n_values) if self.n_values else 0.0

    @property
    def relative(self) -> float:
        """The RMSE in parts of the values' root mean square."""
        return math.sqrt(self.error_squares / self.squares) if self.squares else 0.0


def errors_between(values: np.ndarray, found: np.ndarray) -> ErrorSums:
    """Returns the sums of two arrays of float32 of one shape; `found` is overwritten."""
    np.subtract(found, values, out=found)
    flat, errors = values.reshape(-1), found.reshape(-1)
    largest = float(max(errors.max(), -errors.min())) if errors.size else 0.0
    return ErrorSums(flat.size, _squares(flat), _squares(errors), largest)


def _squares(flat: np.ndarray) -> float:
    return float(np.square(flat).sum())  # pairwise: exact enough


@dataclass(slots=True)
class Kind:
    """The tensors of one name in all layers: how many there are by type, their bytes before and
    after, and the errors of those that were changed."""

    name: str
    types: dict[tuple[QType, QType], int] = field(default_factory=dict)
    bytes_before: int = 0
    bytes_after: int = 0
    errors: ErrorSums = field(default_factory=ErrorSums)

    def to_json(self) -> dict[str, object]:
        types = {f"{a.name} to {b.name}": n for (a, b), n in self.types.items()}
        return {
            "name": self.name, "types": types, "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after, "rmse": self.errors.rmse,
            "relative_rmse": self.errors.relative, "largest_error": self.errors.largest,
        }  # fmt: skip


def kind_name(name: str) -> str:
    """Returns a tensor's name without its layer."""
    return _LAYER.sub("", name)
