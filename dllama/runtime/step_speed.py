"""Measures what a step of few rows takes beside its products: by models whose matrices are next to
nothing, of few and of many layers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import numpy as np

from dllama.collective import SoloCollective
from dllama.config import ModelConfig
from dllama.models import model_tensors
from dllama.qtypes import QType, row_bytes
from dllama.runtime.executor import FEW_ROWS
from dllama.runtime.rank import RankModel
from dllama.runtime.timing import Timed, lower_quartiles
from dllama.sharding.units import sum_units
from dllama.step import Step
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.matmul.sums import Kind

FEW, MANY = 2, 10  # layers
LONG = 2 * FEW_ROWS  # rows of a step whose last half layer is computed for wanted rows alone
DIM = 256  # the longest block of weights
BUDGET_S = 0.02  # of each model


class Shape(NamedTuple):
    """The width of a model's residual stream, and of its feed-forward."""

    dim: int
    hidden_dim: int


TINY = Shape(DIM, DIM)


class StepOverheads(NamedTuple):
    """Seconds: of a step, and of each of its half layers."""

    step_s: float
    half_layer_s: float
    long_half_layer_s: float  # of LONG rows


def measure_steps(qtype: QType, n_threads: int) -> StepOverheads:
    """Returns what a step takes that computes next to nothing: choosing and starting kernels,
    threads that wait for each other, the norms of one short row. Matrices are of `qtype`: kernels
    of another type would have to be compiled for this alone."""
    few, many = (_seconds_of(tiny_model(n, qtype, n_threads)) for n in (FEW, MANY))
    half_layer_s = _of_half_layer(few[0], many[0])
    step_s = max(1e-7, few[0] - 2 * FEW * half_layer_s)
    return StepOverheads(step_s, half_layer_s, _of_half_layer(few[1], many[1]))


def _of_half_layer(few: float, many: float) -> float:
    return max(1e-7, (many - few) / (2 * (MANY - FEW)))


def _seconds_of(model: RankModel) -> tuple[float, float]:
    """Returns the seconds of a step of one row, and of a longer one."""
    with closing(model):
        short, long = lower_quartiles([Timed(step_of(model, n), BUDGET_S) for n in (1, LONG)])
        return short, long


def step_of(model: RankModel, n_rows: int = 1) -> Callable[[], object]:
    """Returns what computes a step of some rows of one sequence, which begins with them."""
    n_bytes = row_bytes(QType.F32, model.weights.config.dim)
    tokens, row = np.zeros(n_rows, np.int32), np.zeros((n_rows, n_bytes), np.uint8)
    one, last = np.zeros(1, np.int32), np.array([n_rows - 1], np.int32)
    step = Step(
        tokens, np.arange(n_rows, dtype=np.int32), np.array([0, n_rows], np.int32), one[None],
        last, np.array([1], np.int32),
    )  # fmt: skip
    alone = SoloCollective()  # one for all: a captured step belongs to a collective
    return lambda: model.forward(step, row, alone)


def tiny_model(n_layers: int, qtype: QType, n_threads: int, shape: Shape = TINY) -> RankModel:
    """Returns a model of zeros, with next to no vocabulary."""
    config = _tiny_config(n_layers, shape)
    units = sum_units(config, head_align=DIM, hidden_align=DIM)
    return RankModel.load(
        config, _zeros(config, qtype), n_pages=2, max_step_tokens=LONG, n_threads=n_threads,
        vocab_start=0, embed_qtype=QType.F32, units=units, kind=Kind.ROUNDED,
    )  # fmt: skip


def layer_bytes(shape: Shape, qtype: QType) -> int:
    """Returns the bytes of a layer of such a model in memory, without making one."""
    infos = _tensor_infos(_tiny_config(1, shape), qtype)
    return sum(info.packed_bytes for info in infos if info.layer is not None)


def _tiny_config(n_layers: int, shape: Shape) -> ModelConfig:
    return ModelConfig(
        arch="llama", name="tiny", dim=shape.dim, hidden_dim=shape.hidden_dim, n_layers=n_layers,
        n_heads=shape.dim // 32, n_kv_heads=shape.dim // 256, head_dim=32, vocab_size=64,
        max_seq_len=64, norm_epsilon=1e-5, rope_theta=1e4,
    )  # fmt: skip


def _zeros(config: ModelConfig, qtype: QType) -> TensorFeed:
    """Returns the tensors of a small model, which are zero whatever their type."""
    infos = _tensor_infos(config, qtype)
    arrays = (
        (info, np.zeros((info.rows, row_bytes(info.qtype, info.cols)), np.uint8)) for info in infos
    )
    return TensorFeed(infos, arrays)


def _tensor_infos(config: ModelConfig, qtype: QType) -> list[TensorInfo]:
    infos = []
    for name, tensor in model_tensors(config).items():
        if name != "embed":
            kind = QType.F32 if tensor.is_vector else qtype
            infos.append(TensorInfo(name, kind, *tensor.shape(config)))
    infos.sort(key=lambda info: (info.layer is None, info.name == "wcls"))
    return infos
