"""distributed-llama's .m files as a WeightSource: the header is checked, rows put in our order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from dllama.config import ModelConfig, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats.layout import check_heads
from dllama.formats.m_layout import (
    ARCH_TYPES,
    FLOAT_TYPES,
    MAGIC,
    MOE_ARCH_TYPE,
    NORM_EPSILONS,
    SILU,
    MKey,
    MRope,
    m_file_bytes,
    m_tensors,
)
from dllama.formats.mapped import MappedFile
from dllama.formats.mapped_source import MappedSource, Placement, Stored
from dllama.formats.rope_order import RotaryPairs
from dllama.formats.stored_views import half_split
from dllama.models import FAMILIES, model_tensors
from dllama.qtypes import QType

_T = TypeVar("_T")
_MAX_HEADER = 8 + 8 * 64  # three times the keys there are


class MFileSource(MappedSource):
    """The weights of a .m file. Raises ModelFileError where it is damaged or of a kind that this
    version does not compute."""

    def __init__(self, path: str | Path) -> None:
        self.file = MappedFile(Path(path))
        try:
            self.header, data_at = _read_header(self.file)
            config, qtype = _Header(self.header, self.file.path).read()
            _check_length(self.file, config, qtype, data_at)
            is_interleaved = _rope_type(self.header) is not MRope.FALCON
            placements = _placements(self.file, config, qtype, data_at, is_interleaved)
            super().__init__(config, placements, [self.file])
        except BaseException:
            self.file.close()
            raise


def _read_header(file: MappedFile) -> tuple[dict[MKey, int], int]:
    """The header's values, and where the first tensor begins."""
    head = file.view(0, 8, "the header")
    if head[:4].tobytes() != MAGIC:
        raise ModelFileError(
            f"{file.path} is no .m file: it begins with {head[:4].tobytes()!r}, a .m file of "
            f"distributed-llama 0.12 or newer with {MAGIC!r}."
        )
    size = int(head[4:].view("<i4")[0])
    if not 8 <= size <= _MAX_HEADER or size % 8:
        raise ModelFileError(
            f"{file.path} claims a header of {size} bytes; expected a multiple of 8 up to "
            f"{_MAX_HEADER}. The file is corrupt; download or convert it again."
        )
    pairs = file.view(8, size - 8, "the header").copy().view("<i4").reshape(-1, 2)
    header: dict[MKey, int] = {}
    for key, value in pairs.tolist():
        if key not in MKey._value2member_map_ or MKey(key) in header:
            raise ModelFileError(
                f"{file.path}: the header key {key} is unknown or comes twice; keys go from 0 to "
                f"{max(MKey)}. The file is corrupt or of a newer kind."
            )
        header[MKey(key)] = value
    return header, size


class _Header:
    """Header values with their checks and defaults."""

    def __init__(self, values: Mapping[MKey, int], path: Path) -> None:
        self._values = values
        self._path = path

    def read(self) -> tuple[ModelConfig, QType]:
        arch = self._arch()
        self._check_activation()
        dim, n_heads = self._size(MKey.DIM), self._size(MKey.N_HEADS)
        if MKey.HEAD_DIM not in self._values and dim % n_heads:
            raise self._error(f"{dim} values do not divide into {n_heads} heads")
        config = ModelConfig(
            arch=arch,
            name=self._path.stem,
            dim=dim,
            hidden_dim=self._size(MKey.HIDDEN_DIM),
            n_layers=self._size(MKey.N_LAYERS),
            n_heads=n_heads,
            n_kv_heads=self._size(MKey.N_KV_HEADS),
            head_dim=self._size(MKey.HEAD_DIM, dim // n_heads or 1),
            vocab_size=self._size(MKey.VOCAB_SIZE),
            max_seq_len=self._size(MKey.MAX_SEQ_LEN),
            norm_epsilon=self._choice(MKey.NORM_EPSILON, NORM_EPSILONS, 5),
            rope_theta=self._rope_theta(),
            rope_scaling=self._rope_scaling(),
            **FAMILIES[arch].always,  # type: ignore[arg-type]
        )
        check_heads(config, self._path)
        return config, self._choice(MKey.WEIGHTS_FLOAT_TYPE, FLOAT_TYPES, None)

    def _arch(self) -> str:
        number = self._values.get(MKey.ARCH_TYPE)
        if number == MOE_ARCH_TYPE or self._values.get(MKey.N_EXPERTS, 0) > 0:
            raise self._error(
                "it is a mixture of experts, and this version runs dense models only",
                "Use another model",
            )
        return self._choice(MKey.ARCH_TYPE, ARCH_TYPES, None)

    def _check_activation(self) -> None:
        if self._values.get(MKey.HIDDEN_ACT, SILU) != SILU:
            raise self._error(
                "its activation is not SiLU, the only one supported", "Use another model"
            )

    def _rope_theta(self) -> float:
        theta = self._size(MKey.ROPE_THETA, 10000)
        if theta < 2:
            raise self._error(f"rope_theta is {theta}; expected at least 2")
        return float(theta)

    def _rope_scaling(self) -> RopeScaling | None:
        self._choice(MKey.ROPE_TYPE, {int(kind): kind for kind in MRope}, 0)
        factor = self._size(MKey.ROPE_SCALING_FACTOR, 1)
        if factor == 1 or _rope_type(self._values) is MRope.FALCON:
            return None
        low = self._size(MKey.ROPE_SCALING_LOW_FREQ_FACTOR)
        high = self._size(MKey.ROPE_SCALING_HIGH_FREQ_FACTOR)
        if high <= low:
            raise self._error(f"rope scaling runs from {low} to {high}; expected a rising pair")
        original = self._size(MKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN)
        return RopeScaling(RopeScalingKind.LLAMA3, float(factor), original, float(low), float(high))

    def _size(self, key: MKey, default: int | None = None) -> int:
        value = self._values.get(key, default)
        if value is None or value < 1:
            found = "is missing" if value is None else f"is {value}"
            raise self._error(f"the header value {key.name.lower()} {found}; expected 1 or more")
        return value

    def _choice(self, key: MKey, table: Mapping[int, _T], default: int | None) -> _T:
        value = self._values.get(key, default)
        if value is None or value not in table:
            known = ", ".join(f"{k} ({v})" for k, v in table.items())
            raise self._error(f"the header value {key.name.lower()} is {value}; known are {known}")
        return table[value]

    def _error(self, what: str, do: str = "Download or convert it again") -> ModelFileError:
        return ModelFileError(f"{self._path}: {what}. {do}.")


def _rope_type(header: Mapping[MKey, int]) -> MRope:
    """The rotation that distributed-llama applies: its Qwen3 is FALCON whatever the header says."""
    arch = ARCH_TYPES.get(header.get(MKey.ARCH_TYPE, 0))
    if arch is not None and not FAMILIES[arch].is_interleaved:
        return MRope.FALCON
    return MRope(header.get(MKey.ROPE_TYPE, 0))


def _check_length(file: MappedFile, config: ModelConfig, qtype: QType, data_at: int) -> None:
    try:
        expected = data_at + m_file_bytes(config, qtype)
    except ValueError as error:
        raise ModelFileError(f"{file.path}: {error}. Convert the model to F16 or F32.") from None
    if file.size != expected:
        verb = "is truncated" if file.size < expected else "is too long"
        raise ModelFileError(
            f"{file.path} {verb}: it has {file.size} bytes, its header implies {expected}. "
            f"Download or convert it again."
        )


def _placements(
    file: MappedFile, config: ModelConfig, qtype: QType, at: int, is_interleaved: bool
) -> list[Stored]:
    stored: list[Stored] = []
    tensors, pairs = model_tensors(config), RotaryPairs(config.head_dim, config.rotary_dim)
    for info in m_tensors(config, qtype):
        place = Placement(info, file, at)
        has_pairs = is_interleaved and tensors[info.name].has_pairs
        stored.append(half_split(place, pairs, file.path) if has_pairs else place)
        at += info.n_bytes
    return stored
