"""Measures how fast weights are read as models read them, by decoding with two models that no cache
holds: one of few thick layers, one of many thin ones.

Products by themselves read faster than the same products in a step: between them come norms and
attention, whose code and data have to be fetched anew behind each matrix, and threads that wait for
each other. What that costs is told apart from what bytes cost, since layers of one model have more
of them than those of another.
"""

from __future__ import annotations

from typing import NamedTuple

from dllama.qtypes import QType
from dllama.runtime.step_speed import Shape, layer_bytes, step_of, tiny_model
from dllama.runtime.timing import Timed, medians

PAIRS = (
    (Shape(1024, 2048), Shape(2048, 8192)),
    (Shape(512, 1024), Shape(1024, 4096)),
    (Shape(256, 512), Shape(512, 2048)),
    (Shape(256, 256), Shape(256, 1024)),
)
"""Thin and thick layers, the largest first: the first pair that fits the memory is taken."""
BUDGET_S = 0.15  # of each model


class Reading(NamedTuple):
    """What decoding takes: the weights of a layer, and each half layer beside them."""

    gb_per_s: float
    half_layer_s: float


def measure_reading(qtype: QType, n_threads: int, n_bytes: int, step_s: float) -> Reading:
    """Returns the speed of models of one type, each of at most `n_bytes` unless a single layer of
    the smallest shape has more; `step_s` is what a step takes apart from its half layers."""
    models, works = [], []
    counts: list[tuple[int, int]] = []
    try:
        for shape in _fitting(qtype, n_bytes):
            n_layers = max(1, n_bytes // layer_bytes(shape, qtype))
            model = tiny_model(n_layers, qtype, n_threads, shape)
            models.append(model)
            works.append(Timed(step_of(model), BUDGET_S))
            n_read = sum(layer.read_bytes(0) for layer in model.weights.layers)
            counts.append((2 * n_layers, n_read))
        thin_s, thick_s = (taken - step_s for taken in medians(works))
    finally:
        for model in models:
            model.close()
    thin, thick = counts
    return told_apart(thin, thick, thin_s, thick_s)


def _fitting(qtype: QType, n_bytes: int) -> tuple[Shape, Shape]:
    """Returns the largest pair of shapes of which a thick layer has at most `n_bytes`; the smallest
    one where none has."""
    fitting = (pair for pair in PAIRS if layer_bytes(pair[1], qtype) <= n_bytes)
    return next(fitting, PAIRS[-1])


def told_apart(
    thin: tuple[int, int], thick: tuple[int, int], thin_s: float, thick_s: float
) -> Reading:
    """Returns what two models (half layers, bytes) tell that take so many seconds a token. Where
    bytes or half layers come out as free, which noise does, all time is that of bytes."""
    (halves, n_bytes), (more_halves, more_bytes) = thick, thin
    across = more_halves * n_bytes - halves * more_bytes
    half_layer_s = (thin_s * n_bytes - thick_s * more_bytes) / across if across > 0 else 0.0
    of_bytes_s = thick_s - halves * half_layer_s
    if half_layer_s < 0 or of_bytes_s < thick_s / 2:
        half_layer_s, of_bytes_s = 0.0, thick_s
    return Reading(n_bytes / max(1e-9, of_bytes_s) / 1e9, half_layer_s)
