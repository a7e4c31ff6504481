"""Runs every kernel once on next to nothing, so that none is left to compile later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from kernels.activations import activations, add_rms_norm, prepare, swiglu
from kernels.attention import attention, scratch
from kernels.candidates import scan_logits
from kernels.dequantize import dequantize
from kernels.kv_pages import WORDS, kv_pages
from kernels.layout import BLOCK_FORMATS, FLOAT_FORMATS, Needs
from kernels.matmul import matmul
from kernels.packing import pack
from kernels.rope import rope_table, rotate_and_store
from kernels.shift_keys import shift_keys
from kernels.team import Team
from kernels.tiles import MANY_FROM

COLS, ROWS, HEAD_DIM, MOST_TOKENS = 256, 16, 16, 96
EVERY = Needs(True, True, True)
FORMATS = (*FLOAT_FORMATS, *BLOCK_FORMATS)


def pieces() -> Iterator[tuple[str, Callable[[Team], None]]]:
    """(name, what to run) of everything there is to compile."""
    yield "norms and activations", _activations
    for name in WORDS:
        yield f"attention, {name.upper()}", lambda team, name=name: _attention(team, name)  # type: ignore[misc]
    yield "candidates", _candidates
    for name in FORMATS:
        yield f"weights in {name.upper()}", lambda team, name=name: _format(team, name)  # type: ignore[misc]


def _activations(team: Team) -> None:
    a, x = activations(1, COLS), np.ones((1, COLS), np.float32)
    nothing, weight = x[0, :0].copy(), x[0].copy()
    add_rms_norm(team.state, x, x.copy(), nothing, weight, 1e-5, a, 1, EVERY)
    swiglu(team.state, np.ones((1, 2 * COLS), np.float32), a, 1, EVERY)
    prepare(team.state, a, 1, EVERY)


def _attention(team: Team, name: str) -> None:
    kv, zero = kv_pages(name, 1, 1, 1, HEAD_DIM), np.zeros(1, np.int32)
    qkv, nothing = np.ones((1, 3 * HEAD_DIM), np.float32), np.zeros(0, np.float32)
    cosines, sines = np.ones((2, 1, HEAD_DIM // 2), np.float32)
    rope_table(zero, np.ones(HEAD_DIM // 2), 1.0, cosines, sines)
    rotate_and_store(
        team.state, qkv, 1, 1, HEAD_DIM, nothing, nothing, nothing, 1e-5, cosines, sines, zero,
        zero, kv.keys[0], kv.values[0],
    )  # fmt: skip
    attention(
        team.state, qkv, np.array([0, 1], np.int32), np.zeros((1, 3), np.int32), 1, zero,
        zero[None], kv.keys[0], kv.values[0], HEAD_DIM, scratch(team.n_threads, HEAD_DIM, 1),
        np.zeros((1, HEAD_DIM), np.float32),
    )  # fmt: skip
    shift_keys(
        team.state, kv.keys, kv.values, zero, zero, 0, 1, 1, np.ones(HEAD_DIM // 2), HEAD_DIM,
    )  # fmt: skip


def _candidates(team: Team) -> None:
    one = np.ones(1, np.int32)
    scan_logits(
        team.state, np.ones((1, 8), np.float32), 8, 0, one, one[None].copy(),
        np.ones((1, 1), np.float32), np.ones(1, np.float32), np.ones(1, np.float32),
    )  # fmt: skip


def _format(team: Team, name: str) -> None:
    """Raw rows come writable over a link and read-only from a file: two types to numba."""
    n_bytes = (
        BLOCK_FORMATS[name].raw_bytes * (COLS // BLOCK_FORMATS[name].values)
        if name in BLOCK_FORMATS
        else FLOAT_FORMATS[name].item_bytes * COLS
    )
    ours = np.zeros((ROWS, n_bytes), np.uint8)
    files = ours.copy()
    files.flags.writeable = False
    a, out = activations(1, COLS), np.zeros((1, ROWS), np.float32)
    many, out_of_many = activations(MOST_TOKENS, COLS), np.zeros((MOST_TOKENS, ROWS), np.float32)
    for raw in (ours, files):
        packed = pack(team.state, name, [raw], COLS)
        matmul(team.state, packed, a, 1, out)
        if MANY_FROM <= MOST_TOKENS:
            matmul(team.state, packed, many, MANY_FROM, out_of_many)
        dequantize(name, raw[:1], np.zeros((1, COLS), np.float32))
