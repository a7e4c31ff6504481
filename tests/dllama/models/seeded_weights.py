"""The weights of a folder as functions of their names: the same wherever it is written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.checkpoints import write_safetensors

FILE = "model.safetensors"


def shapes_of(folder: Path) -> dict[str, list[int]]:
    """Returns the shapes of a folder's tensors by their names, sorted."""
    with (folder / FILE).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return {name: header[name]["shape"] for name in sorted(header)}


def reseed(folder: Path) -> None:
    """Gives a folder's tensors their seeded values."""
    write_seeded(folder, shapes_of(folder))


def write_seeded(folder: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """Writes a folder's one file of weights, in float32, for tensors by their names."""
    tensors = {
        name: ("F32", tuple(shape), seeded_values(name, shape).tobytes())
        for name, shape in shapes.items()
    }
    write_safetensors(folder / FILE, tensors, {"format": "pt"})


def seeded_values(name: str, shape: Sequence[int]) -> np.ndarray:
    """Returns float32 values far from the tame ones of a fresh model; NumPy promises that this
    generator's never change."""
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("A_log"):  # states that fade at many paces
        values = 1.5 * noise - 1
    elif name.endswith(("bias", "sinks")):
        values = 0.3 * noise
    elif len(shape) == 1:
        values = 1 + 0.1 * noise
    else:
        values = noise / shape[-1] ** 0.5
    return values.astype(np.float32)
