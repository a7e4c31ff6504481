"""Writes a model with its matrices in other types, and says how far they are from what they
were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.floats import FLOAT_TYPES, floats_of
from dllama.formats.slabs import ENCODED, slabs
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.formats.writing.streamed import StreamedFile
from dllama.host.disk import check_room
from dllama.qtypes import QType
from dllama.quantizing.choice import Recipe, chosen_types, sizes_of
from dllama.quantizing.errors_found import ErrorSums, Kind, errors_between, kind_name
from dllama.quantizing.tensor_files import TensorFile
from dllama.weight_source import TensorInfo
from kernels.weights.dequantize import dequantize

QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of a file's tensors: pairs of each as it is and as it will be."""

    pairs: Sequence[tuple[TensorInfo, TensorInfo]]

    @property
    def bytes_before(self) -> int:
        return sum(stored.n_bytes for stored, _ in self.pairs)

    @property
    def bytes_after(self) -> int:
        return sum(made.n_bytes for _, made in self.pairs)

    def kinds(self) -> dict[str, Kind]:
        """Returns the tensors by kind, with no errors yet."""
        kinds: dict[str, Kind] = {}
        for stored, made in self.pairs:
            kind = kinds.setdefault(kind_name(stored.name), Kind(kind_name(stored.name)))
            types = (stored.qtype, made.qtype)
            kind.types[types] = kind.types.get(types, 0) + 1
            kind.bytes_before += stored.n_bytes
            kind.bytes_after += made.n_bytes
        return kinds


def plan_of(file: TensorFile, recipe: Recipe) -> Plan:
    """Returns what becomes of each tensor. Raises ConfigError."""
    types = chosen_types(file.tensors, sizes_of(file.metadata), recipe)
    return Plan([(info, replace(info, qtype=types[info.name])) for info in file.tensors])


def values_of(raw: np.ndarray, qtype: QType, cols: int) -> np.ndarray:
    """Returns rows of raw blocks, uint8 (rows, bytes of a row), as float32 (rows, cols)."""
    if qtype in FLOAT_TYPES:
        return floats_of(raw, qtype)
    values = np.empty((len(raw), cols), np.float32)
    dequantize(qtype.name.lower(), np.ascontiguousarray(raw), values)
    return values


class Quantizer:
    """Writes a plan's file, or files where `keeps_parts`, which appear when all are whole."""

    def __init__(
        self, file: TensorFile, recipe: Recipe, plan: Plan, n_threads: int,
        on_bytes: Callable[[int], None] = lambda n: None,
    ) -> None:  # fmt: skip
        """`on_bytes` hears of the bytes that have been read."""
        self._file, self._recipe, self._plan = file, recipe, plan
        self._n_threads, self._on_bytes = n_threads, on_bytes
        self.kinds = plan.kinds()

    def write(self, path: Path, *, keeps_parts: bool = False) -> list[Path]:
        """Returns the paths of what was written. Raises ConfigError where the disk is too small,
        ModelFileError where the file is damaged or a weight is no number."""
        check_room(path, self._plan.bytes_after)
        n_parts = self._file.n_parts if keeps_parts else 1
        paths = part_names(path, n_parts)
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self._n_threads, "quantize"))
            outs = [
                stack.enter_context(self._stream(paths[part], part, n_parts))
                for part in range(n_parts)
            ]
            for stored, made in self._plan.pairs:
                out = outs[self._file.part_of(stored.name) if n_parts > 1 else 0]
                self._write_tensor(pool, out, stored, made)
        return paths

    def _stream(self, path: Path, part: int, n_parts: int) -> StreamedFile:
        made = [
            info for _, info in self._plan.pairs
            if n_parts == 1 or self._file.part_of(info.name) == part
        ]  # fmt: skip
        keys: dict[str, object] = {}
        if part == 0:
            keys = self._file.keys() | {
                "general.file_type": self._recipe.mix.file_type,
                "general.quantization_version": QUANTIZATION_VERSION,
            }
        elif "general.alignment" in (whole := self._file.keys()):
            keys = {"general.alignment": whole["general.alignment"]}
        if n_parts > 1:
            keys |= {
                "split.no": np.uint16(part),
                "split.count": np.uint16(n_parts),
                "split.tensors.count": np.int32(len(self._plan.pairs)),
            }
        return gguf_stream(path, keys, made)

    def _write_tensor(
        self, pool: ThreadPoolExecutor, out: StreamedFile, stored: TensorInfo, made: TensorInfo
    ) -> None:
        errors = ErrorSums()
        for piece in self._file.pieces(stored):
            if stored.qtype is made.qtype:
                out.write(piece)
            else:
                convert = partial(_converted, piece, stored, made)
                for raw, found in pool.map(convert, slabs(len(piece), stored.cols, ENCODED)):
                    out.write(raw)
                    errors.add(found)
            self._on_bytes(piece.nbytes)
        if errors.error_squares != errors.error_squares or errors.largest == float("inf"):
            raise ModelFileError(
                f"the tensor {stored.name} has values that are no numbers, or too large for "
                f"{made.qtype.name}; the file is damaged, so download or convert it again"
            )
        self.kinds[kind_name(stored.name)].errors.add(errors)


def _converted(
    piece: np.ndarray, stored: TensorInfo, made: TensorInfo, slab: slice
) -> tuple[np.ndarray, ErrorSums]:
    """Returns some rows of a piece in another type, and their errors."""
    values = values_of(piece[slab], stored.qtype, stored.cols)
    raw = encode(values, made.qtype)
    return raw, errors_between(values, values_of(raw, made.qtype, made.cols))


def part_names(path: Path, n_parts: int) -> list[Path]:
    """Returns the names of a model's parts; of one, the path itself."""
    if n_parts == 1:
        return [path]
    return [
        path.with_name(f"{path.stem}-{number:05}-of-{n_parts:05}.gguf")
        for number in range(1, n_parts + 1)
    ]
