"""Runs every kernel once on tiny inputs, so that none is left to compile later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from kernels.activations import swiglu
from kernels.attention.causal import attention, scratch
from kernels.attention.gate import apply_gates, part_gates
from kernels.attention.kv_pages import WORDS, kv_pages
from kernels.attention.rope import rope_table, rotate_and_store
from kernels.attention.shift_keys import shift_keys
from kernels.attention.tile import scoring
from kernels.candidates import scan_logits
from kernels.encoding import MODULES
from kernels.encoding.encode import encode_rows
from kernels.experts.routing import Router, route, routes
from kernels.experts.slots import activate, gather
from kernels.experts.sums import add_slots
from kernels.formats import ALL_TYPES, format_of
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import FixedSums
from kernels.matmul.tiles import MANY_FROM
from kernels.norms import add_norm
from kernels.prepare import activations, pack_quants, prepare, unpack_quants, wire_words
from kernels.recurrent.convolution import convolution
from kernels.recurrent.delta import DeltaWeights, delta_net
from kernels.recurrent.states import Slots, delta_states
from kernels.soft_cap import soft_cap
from kernels.team import Team
from kernels.weights.dequantize import dequantize
from kernels.weights.layout import GROUP, Needs
from kernels.weights.packing import pack

COLS, ROWS, HEAD_DIM, MOST_TOKENS = 256, 16, 16, 96
EVERY = Needs(True, True, True)


def pieces() -> Iterator[tuple[str, Callable[[Team], None]]]:
    """Yields (name, function that runs it) of everything there is to compile."""
    yield "norms and activations", _activations
    yield "mixtures of experts", _experts
    for name in WORDS:
        yield f"attention, {name.upper()}", lambda team, name=name: _attention(team, name)  # type: ignore[misc]
    yield "gated delta nets", _delta_nets
    yield "candidates", _candidates
    for name in ALL_TYPES:
        yield f"weights in {name.upper()}", lambda team, name=name: _weights(team, name)  # type: ignore[misc]
    for name in MODULES:
        yield f"weights made into {name.upper()}", lambda team, name=name: _encoding(name)  # type: ignore[misc]


def _activations(team: Team) -> None:
    a, x = activations(1, COLS), np.ones((1, COLS), np.float32)
    nothing, weight = x[0, :0].copy(), x[0].copy()
    add_norm(team.state, x, x.copy(), nothing, weight, 1e-5, a, 1, EVERY)
    swiglu(team.state, np.ones((1, 2 * COLS), np.float32), a, 1, EVERY)
    prepare(team.state, a, 1, EVERY)
    wire = np.zeros((1, wire_words(COLS)), np.float32)
    pack_quants(team.state, a, 1, (0, 1), wire)
    unpack_quants(team.state, wire, a, 1, (0, 1))


def _experts(team: Team) -> None:
    """All kinds of arguments: rows that are rounded or not, with and without a shared expert."""
    one, sums = np.ones((1, 2 * COLS), np.float32), FixedSums.zeros(2, GROUP)
    a, found = activations(1, COLS), routes(1, 1, 1, has_shared=True)
    route(team.state, one, 1, found, Router())
    gather(team.state, one[:, :COLS].copy(), found.rows, found.table, a, EVERY)
    activate(team.state, one, found.weights, found.table, a, EVERY)
    for out in (np.zeros((1, GROUP), np.float32), FixedSums.zeros(1, GROUP)):
        add_slots(team.state, found, 1, sums, out)


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
        zero[None], kv.keys[0], kv.values[0], HEAD_DIM, scoring(HEAD_DIM),
        scratch(team.n_threads, HEAD_DIM, 1), np.zeros((1, HEAD_DIM), np.float32),
    )  # fmt: skip
    shift_keys(
        team.state, kv.keys, kv.values, zero, zero, 0, 1, 1, np.ones((1, HEAD_DIM // 2)), HEAD_DIM,
    )  # fmt: skip


def _delta_nets(team: Team) -> None:
    dims = (HEAD_DIM, HEAD_DIM)
    states = delta_states(1, 1, (1, 1), dims, 3, team.n_threads)
    zero, starts, one = np.zeros(1, np.int32), np.array([0, 1], np.int32), np.ones(1, np.float32)
    slots = Slots(zero, zero, zero - 1)
    x, out = np.ones((1, 4 * HEAD_DIM + 2), np.float32), np.zeros((1, HEAD_DIM), np.float32)
    convolution(team.state, x, starts, zero, slots, x[:, : 3 * HEAD_DIM].copy(), states, 0)
    weights = DeltaWeights(-one, one, np.ones(HEAD_DIM, np.float32))
    delta_net(team.state, x, starts, zero, slots, weights, states, 0, 1, True, 1e-6, out)
    part_gates(team.state, x, 1, 1, 1, HEAD_DIM, out)
    apply_gates(team.state, x, 1, HEAD_DIM, out)


def _candidates(team: Team) -> None:
    one = np.ones(1, np.int32)
    soft_cap(team.state, np.ones((1, GROUP), np.float32), 1, 1.0)
    scan_logits(
        team.state, np.ones((1, 8), np.float32), 8, 0, 8, one, one[None].copy(),
        *np.ones((3, 1, 1), np.float32),
    )  # fmt: skip


def _encoding(name: str) -> None:
    out = np.zeros(format_of(name).layout.row_bytes(COLS), np.uint8)
    encode_rows(name, np.ones(COLS, np.float32), out)


def _weights(team: Team, name: str) -> None:
    raw = np.zeros((ROWS, format_of(name).layout.row_bytes(COLS)), np.uint8)
    a, out = activations(1, COLS), np.zeros((1, ROWS), np.float32)
    many, out_of_many = activations(MOST_TOKENS, COLS), np.zeros((MOST_TOKENS, ROWS), np.float32)
    packed = pack(team.state, name, [raw], COLS)
    matmul(team.state, packed, a, 1, out)
    if MANY_FROM <= MOST_TOKENS:
        matmul(team.state, packed, many, MANY_FROM, out_of_many)
    dequantize(name, raw[:1], np.zeros((1, COLS), np.float32))
