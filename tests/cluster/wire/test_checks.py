"""Steps, shifts, manifests and calls off the wire point only into memory there is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cluster.root.session_plan import warm_up_steps
from cluster.wire.checks import (
    check_manifest,
    check_pages,
    check_peers,
    check_spares,
    check_tilings,
)
from cluster.wire.messages import KvCall, Load, Message, Spares, StepCall, pack, unpack
from cluster.wire.model_checks import check_config
from cluster.wire.step_checks import KvRoom, RankLimits, check_kv_call, check_shift, checked_step
from dllama.config import DeltaSizes, Latent, LayerAttention, QueryGrowth
from dllama.errors import ProtocolError
from dllama.kv import KvHeld, KvShift
from dllama.kv_type import KvType
from dllama.qtypes import QType
from dllama.sharding.pieces import Tiling
from dllama.sharding.units import SumUnits
from dllama.step import PAGE_TOKENS, Step
from dllama.weight_source import TensorInfo
from tests.cluster.array_source import small_config

LIMITS = RankLimits(
    max_step_tokens=8, n_pages=4, max_seq_len=100, vocab_size=50, embed_row_bytes=6, n_slots=4
)
SHIFT_LIMITS = RankLimits(64, n_pages=8, max_seq_len=128, vocab_size=100, embed_row_bytes=4)


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def sent(message: Message) -> Any:
    """A message as its receiver reads it. Raises ProtocolError."""
    _, received = unpack([bytes(frame) for frame in pack(message, 9)])
    return received


def sound_step() -> Step:
    """Two sequences: one decodes at position 40, one prefills three tokens."""
    return Step(
        tokens=i32(1, 2, 3, 49),
        positions=i32(40, 0, 1, 2),
        starts=i32(0, 1, 4),
        pages=i32([0, 3], [2, -1]),
        logits_at=i32(0, 3),
        candidates=i32(0, 40),
        copies=i32([1, 3], [2, 2]),
        hidden_at=i32(3),
        slots=i32([2, 0], [1, 1]),
        kept=i32([2, 3]),
    )


ROWS = np.zeros((4, 6), np.uint8)


def test_a_sound_step_passes_as_it_is() -> None:
    step = checked_step(sent(StepCall(sound_step(), ROWS)), LIMITS)
    assert all(np.array_equal(getattr(step, n), getattr(sound_step(), n)) for n in Step.__slots__)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, tokens=i32(1, 2, 3, 50)),
        lambda s: replace(s, tokens=i32(1, 2, 3, -1)),
        lambda s: replace(s, tokens=s.tokens.astype(np.float32)),
        lambda s: replace(s, tokens=s.tokens[None]),
        lambda s: replace(s, positions=i32(64, 0, 1, 2)),
        lambda s: replace(s, positions=i32(100, 0, 1, 2)),
        lambda s: replace(s, positions=i32(-1, 0, 1, 2)),
        lambda s: replace(s, positions=i32(40, 0, 1)),
        lambda s: replace(s, starts=i32(0, 0, 4)),
        lambda s: replace(s, starts=i32(0, 5, 4)),
        lambda s: replace(s, starts=i32(1, 2, 4)),
        lambda s: replace(s, starts=i32(0, 1, 3)),
        lambda s: replace(s, starts=i32(0)),
        lambda s: replace(s, pages=i32([0, 4], [2, -1])),
        lambda s: replace(s, pages=i32([0, -1], [2, -1])),
        lambda s: replace(s, pages=i32([-1, 1], [2, -1])),
        lambda s: replace(s, pages=i32([0, -2], [2, -1])),
        lambda s: replace(s, pages=i32([0, 3])),
        lambda s: replace(s, pages=i32(0, 3)),
        lambda s: replace(s, logits_at=i32(0, 4)),
        lambda s: replace(s, logits_at=i32(0, -1)),
        lambda s: replace(s, logits_at=i32(0)),
        lambda s: replace(s, hidden_at=i32(4)),
        lambda s: replace(s, hidden_at=i32(-1)),
        lambda s: replace(s, candidates=i32(0, 257)),
        lambda s: replace(s, candidates=i32(0, -1)),
        lambda s: replace(s, copies=i32([1, 4])),
        lambda s: replace(s, copies=i32([-1, 3])),
        lambda s: replace(s, copies=i32([1, 2, 3])),
        lambda s: replace(s, copies=i32(1, 2)),
        lambda s: replace(s, slots=i32([4, 0], [1, 1])),
        lambda s: replace(s, slots=i32([2, 0], [1, -1])),
        lambda s: replace(s, slots=i32([2, 0])),
        lambda s: replace(s, slots=i32([2, 0, 1], [1, 1, 1])),
        lambda s: replace(s, slots=i32([2, 1], [1, 1])),  # both write it
        lambda s: replace(s, slots=i32([1, 0], [1, 1])),  # one writes what the other reads
        lambda s: replace(s, slots=i32([3, 0], [1, 1])),
        lambda s: replace(s, slots=s.kept[:0]),
        lambda s: replace(s, kept=i32([4, 3])),
        lambda s: replace(s, kept=i32([2, 4])),
        lambda s: replace(s, kept=i32([2, 0])),
        lambda s: replace(s, kept=i32([1, 3], [2, 3])),
    ],
)
def test_a_step_that_points_outside_is_refused(change: Callable[[Step], Step]) -> None:
    with pytest.raises(ProtocolError, match=r"breaks this rule|is expected"):
        checked_step(sent(StepCall(change(sound_step()), ROWS)), LIMITS)


WINDOW_LIMITS = replace(LIMITS, n_window_pages=3, window=9)


def windowed_step() -> Step:
    """The same, with pages of a window of nine tokens: row 0 sees those from position 32 on."""
    return replace(sound_step(), window_pages=i32([-1, 2], [0, -1]), window_copies=i32([1, 2]))


@pytest.mark.parametrize(
    "change",
    [
        {"window_pages": i32([-1, 3], [0, -1])},
        {"window_pages": i32([-2, 2], [0, -1])},
        {"window_pages": i32([1, -1], [0, -1])},
        {"window_pages": i32([-1, 2], [-1, 0])},
        {"window_pages": i32([-1, 2])},
        {"window_pages": i32([2], [0])},
        {"window_pages": i32([-1, 2], [0, -1]).astype(np.float32)},
        {"window_pages": i32()[:, None]},  # `pages` names a page 3, which windows do not have
        {"window_copies": i32([1, 3])},
        {"window_copies": i32([-1, 2])},
        {"window_copies": i32([0, 1, 2])},
    ],
)
def test_pages_of_windows_that_are_not_there_are_refused(change: dict[str, np.ndarray]) -> None:
    checked_step(sent(StepCall(windowed_step(), ROWS)), WINDOW_LIMITS)
    checked_step(sent(StepCall(windowed_step(), ROWS)), replace(WINDOW_LIMITS, window=1))
    with pytest.raises(ProtocolError, match=r"breaks this rule|is expected"):
        checked_step(sent(StepCall(windowed_step(), ROWS)), replace(WINDOW_LIMITS, window=10))
    with pytest.raises(ProtocolError, match=r"breaks this rule|is expected"):
        checked_step(sent(StepCall(replace(windowed_step(), **change), ROWS)), WINDOW_LIMITS)


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((3, 6), np.uint8),
        np.zeros((4, 6), np.int32),
        np.zeros(24, np.uint8),
    ],
)
def test_embedding_rows_are_one_for_each_token(rows: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match=r"breaks this rule|is expected"):
        checked_step(sent(StepCall(sound_step(), rows)), LIMITS)


def test_a_step_larger_than_the_rank_has_room_for_is_refused() -> None:
    call = sent(StepCall(sound_step(), ROWS))
    checked_step(call, replace(LIMITS, max_step_tokens=4))
    with pytest.raises(ProtocolError, match="4 tokens fit a step"):
        checked_step(call, replace(LIMITS, max_step_tokens=3))


arrays = hnp.arrays(np.int32, hnp.array_shapes(max_dims=2, max_side=4), elements=st.integers(-2, 9))


@given(st.builds(StepCall, st.builds(Step, *[arrays] * 7), st.just(np.zeros((2, 6), np.uint8))))
def test_whatever_passes_points_inside(call: StepCall) -> None:
    try:
        step = checked_step(sent(call), LIMITS)
    except ProtocolError:
        return
    for s in range(len(step.starts) - 1):
        for position in step.positions[step.starts[s] : step.starts[s + 1]]:
            assert all(0 <= p < 4 for p in step.pages[s, : position // PAGE_TOKENS + 1])
    assert step.copies.shape[1] == 2 and all(0 <= p < 4 for p in step.copies.ravel())


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 300))
def test_warm_up_steps_are_sound(max_tokens: int, n_pages: int, max_seq_len: int) -> None:
    limits = RankLimits(max_tokens, n_pages, max_seq_len, 1, 1)
    for step in warm_up_steps(max_tokens, n_pages, max_seq_len):
        checked_step(StepCall(step, np.zeros((step.n_tokens, 1), np.uint8)), limits)


# ---- shifts
SHIFT = KvShift(127, 40, 43, i32(3, 1, 5, 0), i32(3, 7, 5))


def test_a_shift_survives_the_trip() -> None:
    shift = sent(SHIFT)
    check_shift(shift, SHIFT_LIMITS)
    assert isinstance(shift, KvShift)
    assert (shift.n_tokens, shift.n_keep, shift.n_drop) == (127, 40, 43)
    assert shift.from_pages.tolist() == [3, 1, 5, 0] and shift.to_pages.tolist() == [3, 7, 5]


@pytest.mark.parametrize(
    "bad",
    [
        replace(SHIFT, n_tokens=129),
        replace(SHIFT, n_tokens=0),
        replace(SHIFT, n_keep=-1),
        replace(SHIFT, n_keep=127),
        replace(SHIFT, n_drop=0),
        replace(SHIFT, n_drop=88),
        replace(SHIFT, from_pages=i32(3, 1, 5)),
        replace(SHIFT, from_pages=i32(3, 1, 5, 8)),
        replace(SHIFT, from_pages=i32(3, 1, 5, -1)),
        replace(SHIFT, from_pages=i32(3, 1, 5, 5)),
        replace(SHIFT, from_pages=SHIFT.from_pages.astype(np.float32)),
        replace(SHIFT, from_pages=SHIFT.from_pages[None]),
        replace(SHIFT, to_pages=i32(3, 7)),
        replace(SHIFT, to_pages=i32(7, 2, 5)),  # a kept page would have to move
        replace(SHIFT, to_pages=i32(3, 5, 1)),  # written before it is read
        replace(SHIFT, to_pages=i32(3, 7, 7)),
    ],
)
def test_a_shift_that_harms_memory_is_refused(bad: KvShift) -> None:
    check_shift(SHIFT, SHIFT_LIMITS)
    with pytest.raises(ProtocolError, match=r"breaks this rule|is expected"):
        check_shift(sent(bad), SHIFT_LIMITS)


ROLLED = replace(SHIFT, from_window_pages=i32(4, -1, 2, 5), to_window_pages=i32(4, 2, 5))


@pytest.mark.parametrize(
    "change",
    [
        {"from_window_pages": i32(), "to_window_pages": i32()},
        {"from_window_pages": i32(4, -1, 2)},
        {"from_window_pages": i32(4, -1, 2, 6)},
        {"from_window_pages": i32(4, -2, 2, 5)},
        {"from_window_pages": i32(4, 2, 2, 5)},
        {"to_window_pages": i32(4, 2, 6)},
        {"to_window_pages": i32(4, 2)},
        {"to_window_pages": i32(4, 2, 2)},
        {"to_window_pages": i32(0, 2, 5)},  # a kept page would have to move
        {"to_window_pages": i32(2, 4, 5)},
        {"to_window_pages": i32(4, 5, 2)},  # 5 would be read after it is written
    ],
)
def test_a_shift_that_harms_windows_is_refused(change: dict[str, np.ndarray]) -> None:
    limits = replace(SHIFT_LIMITS, n_window_pages=6, window=40)
    check_shift(sent(ROLLED), limits)
    check_shift(sent(replace(ROLLED, to_window_pages=i32(-1, 0, 5))), limits)
    with pytest.raises(ProtocolError, match="breaks this rule"):
        check_shift(sent(replace(ROLLED, **change)), limits)
    with pytest.raises(ProtocolError, match="breaks this rule"):
        check_shift(sent(ROLLED), SHIFT_LIMITS)


def test_pages_of_another_integer_type_do_not_even_leave() -> None:
    with pytest.raises(ValueError, match="int64"):
        pack(replace(SHIFT, from_pages=SHIFT.from_pages.astype(np.int64)))


# ---- saved pages
HELD = KvHeld(i32(2, 0), i32(3))
KV_CALL = KvCall(1, True, "chat-0a.rank1.kv", HELD, np.zeros(32, np.uint8))
KV_ROOM = KvRoom(4, 5)


@pytest.mark.parametrize(
    "bad",
    [
        replace(KV_CALL, held=replace(HELD, pages=i32())),
        replace(KV_CALL, held=replace(HELD, pages=i32(0, 4))),
        replace(KV_CALL, held=replace(HELD, pages=i32(-1))),
        replace(KV_CALL, held=replace(HELD, pages=i32(0, 0))),
        replace(KV_CALL, held=replace(HELD, pages=i32(0, 1, 2, 3, 0))),
        replace(KV_CALL, held=replace(HELD, pages=np.zeros(1, np.float32))),
        replace(KV_CALL, held=replace(HELD, window_pages=i32(5))),
        replace(KV_CALL, held=replace(HELD, window_pages=i32(-1))),
        replace(KV_CALL, held=replace(HELD, window_pages=i32(1, 1))),
        replace(KV_CALL, mark=np.zeros(31, np.uint8)),
        replace(KV_CALL, mark=np.zeros(8, np.int32)),
        replace(KV_CALL, held=replace(HELD, slot=0)),
        replace(KV_CALL, held=replace(HELD, slot=-2)),
        replace(KV_CALL, name=""),
        replace(KV_CALL, name="../other"),
        replace(KV_CALL, name=".hidden"),
        replace(KV_CALL, name="a/b"),
        replace(KV_CALL, name="x" * 201),
        replace(KV_CALL, name="a\n"),
    ],
)
def test_a_call_for_pages_that_no_root_makes_is_refused(bad: KvCall) -> None:
    check_kv_call(sent(KV_CALL), KV_ROOM)
    with pytest.raises(ProtocolError, match=r"the root|is expected"):
        check_kv_call(sent(bad), KV_ROOM)


# ---- models
ONE = [TensorInfo("norm", QType.F32, 1, 4)]
DELTA = DeltaSizes(4, 8, 16, 32, 4, interval=2, bundle=2)
SIZES = Latent(kv_rank=16, rope_dim=4, nope_dim=8, value_dim=8)
LATENT: dict[str, object] = {
    "latent": SIZES, "n_kv_heads": 8, "head_dim": 12, "partial_rotary_dim": 4
}  # fmt: skip


def test_a_manifest_is_checked_before_memory_is_taken() -> None:
    check_manifest(ONE, 16)
    with pytest.raises(ProtocolError, match="memory free"):
        check_manifest(ONE, 15)
    with pytest.raises(ProtocolError, match="memory free"):
        check_manifest(ONE * 2, 31)
    for info in (
        TensorInfo("x", 99, 1, 32),  # type: ignore[arg-type]
        TensorInfo("x", QType.Q4_0, 1, 31),
        TensorInfo("x", QType.Q4_K, 1, 128),
        TensorInfo("x", QType.F32, -1, 32),
        TensorInfo("x", QType.F32, 0, 32),
        TensorInfo("x", QType.F32, 1, 1 << 40),
        TensorInfo("x", QType.F32, 1, 1 << 26),
        TensorInfo("x", QType.F32, 1 << 40, 1),
        TensorInfo("x", QType.F32, 1, 32, 32),
        TensorInfo("x", QType.F32, 1, 32, -1),
        TensorInfo("x", QType.F32, 1, 32, 16, n_own_cols=17),
        TensorInfo("x", QType.F32, 1, 32, n_own_cols=-1),
        TensorInfo("x", QType.Q4_K, 1, 512, 16, n_own_cols=256),
        TensorInfo("x", QType.Q4_K, 1, 512, 32, n_own_cols=250),
    ):
        one, digests = Tiling(False, 1, 1, 1, 0), np.zeros((1, 32), np.uint8)
        load = Load(
            small_config(),
            [info],
            [one],
            digests,
            8,
            KvType.F16,
            64,
            16,
            SumUnits(32, 32, 16),
            QType.F32,
        )
        with pytest.raises(ProtocolError, match=r"cannot be|is expected"):
            check_manifest(sent(load).manifest, 1 << 60)


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0},
        {"hidden_dim": -1},
        {"n_layers": 1 << 25},
        {"n_kv_heads": 3},
        {"n_kv_heads": 0},
        {"n_experts": 4},
        {"n_experts": 4, "n_active_experts": 5},
        {"shared_hidden_dim": 97},
        {"n_dense_layers": 1},
        {"n_dense_layers": 3, "dense_hidden_dim": 64},
        {"n_dense_layers": 1, "dense_hidden_dim": 1 << 25},
        {"n_experts": 4, "n_active_experts": 2, "n_expert_groups": 3},
        {"n_experts": 4, "n_active_experts": 2, "n_expert_groups": 4, "n_active_groups": 1},
        {"n_expert_groups": 0, "n_active_groups": 0},
        {"n_experts": 1 << 20, "n_active_experts": 2},
        {"mixture_interval": 0},
        {"mixture_interval": 2, "n_experts": 4, "n_active_experts": 2},
        {"query_growth": QueryGrowth(math.nan, 8192)},
        {"query_growth": QueryGrowth(0.1, 0)},
        {"query_growth": QueryGrowth(0.1, 8192, first=-1)},
        {"attention_layers": (LayerAttention(is_chunked=True),) * 2},
        {"attention_layers": (LayerAttention(),)},
        {"attention_layers": (LayerAttention(), LayerAttention(window=0))},
        {"local_rope_theta": 1.0},
        {"attention_scale": math.inf},
        {"attention_softcap": -1.0},
        {"final_softcap": math.nan},
        {"embedding_scale": math.inf},
        {"long_rope_factors": (1.0,)},
        {"delta": replace(DELTA, n_key_heads=0)},
        {"delta": replace(DELTA, n_value_heads=6)},
        {"delta": replace(DELTA, bundle=3)},
        {"delta": replace(DELTA, pairs_gates=True)},
        {"delta": replace(DELTA, key_dim=15)},
        {"delta": replace(DELTA, value_dim=8)},
        {"delta": replace(DELTA, conv_len=1)},
        {"delta": replace(DELTA, interval=1)},
        {"delta": replace(DELTA, n_slots=0)},
        {"arch": "deepseek2"},
        {"latent": LATENT["latent"]},
        *(
            {"arch": "deepseek2", **LATENT, **changes}
            for changes in (
                {"n_kv_heads": 4},
                {"head_dim": 10},
                {"partial_rotary_dim": 2},
                {"latent": replace(SIZES, kv_rank=0)},
                {"latent": replace(SIZES, nope_dim=1 << 25), "head_dim": (1 << 25) + 4},
                {"latent": replace(SIZES, value_dim=-1)},
                {"latent": replace(SIZES, q_rank=-1)},
            )
        ),
    ],
)
def test_sizes_that_make_no_model_are_refused(changes: dict[str, object]) -> None:
    check_config(small_config())
    check_config(small_config(delta=DELTA))
    check_config(small_config(arch="deepseek2", **LATENT))
    with pytest.raises(ProtocolError, match="no model"):
        check_config(small_config(**changes))


TILED = TensorInfo("x", QType.Q4_0, 64, 128)  # 4 blocks in each of 64 rows


@pytest.mark.parametrize(
    "tiling",
    [
        Tiling(False, 2, 48, 48, 0),  # more rows than there are: fine
        Tiling(False, 3, 24, 16, 0),
        Tiling(False, 3, 24, 24, 5),
        Tiling(True, 2, 64, 64, 0),
        Tiling(True, 2, 96, 96, 32),
        Tiling(True, 1, 256, 256, 128),
    ],
)
def test_pieces_that_hold_their_tensor_are_taken(tiling: Tiling) -> None:
    check_tilings([TILED], [tiling], np.zeros((tiling.n_tiles, 32), np.uint8), 1 << 20)


@pytest.mark.parametrize(
    "tiling",
    [
        Tiling(False, 2, 24, 24, 0),  # too few rows
        Tiling(False, 2, 48, 15, 0),
        Tiling(False, 3, 48, 48, 0),  # the last piece is there for nothing
        Tiling(False, 3, 48, 48, 48),  # the first is
        Tiling(False, 3, 24, 25, 0),  # the last one is larger than the others
        Tiling(True, 2, 48, 96, 0),
        Tiling(True, 2, 80, 80, 0),  # inside of a block
        Tiling(True, 2, 96, 96, 16),
        Tiling(True, 1, 144, 144, 16),
        Tiling(False, 1, 1 << 27, 1 << 27, 0),  # no memory
    ],
)
def test_pieces_that_do_not_hold_their_tensor_are_refused(tiling: Tiling) -> None:
    with pytest.raises(ProtocolError, match="do not hold"):
        check_tilings([TILED], [tiling], np.zeros((tiling.n_tiles, 32), np.uint8), 1 << 20)


def test_every_piece_has_a_digest() -> None:
    whole = Tiling(False, 1, 64, 64, 0)
    check_tilings([TILED], [whole], np.zeros((1, 32), np.uint8), 1 << 20)
    for tilings, shape in (([whole], (2, 32)), ([whole], (1, 31)), ([], (0, 32))):
        with pytest.raises(ProtocolError, match="digests of the shape"):
            check_tilings([TILED], tilings, np.zeros(shape, np.uint8), 1 << 20)


def test_spares_have_sizes_and_digests() -> None:
    digests = np.zeros((2, 32), np.uint8)
    check_spares(Spares(digests, np.array([1, 1000], np.int32)), 2000)
    for sizes in ([1], [1, 0], [1, -1], [1, 3000]):
        with pytest.raises(ProtocolError, match="pieces of weights"):
            check_spares(Spares(digests, np.array(sizes, np.int32)), 2000)


@pytest.mark.parametrize(
    "peer",
    ["", "f32", "ipc:///tmp/x", "tcp://", "tcp://host", "tcp://host:0", "tcp://a b:1", "tcp://*:1"],
)
def test_peers_are_tcp_endpoints_of_all_ranks(peer: str) -> None:
    check_peers(["tcp://10.0.0.1:9999", "tcp://[fe80::1%eth0]:9998"], 2)
    with pytest.raises(ProtocolError, match="as the address of a rank"):
        check_peers(["tcp://10.0.0.1:9999", peer], 2)
    with pytest.raises(ProtocolError, match="named 1 ranks for a session of 2"):
        check_peers(["tcp://10.0.0.1:9999"], 2)


def test_pages_fit_the_memory_that_is_free() -> None:
    config = small_config()  # 2 layers, heads of 8: 1 KiB a page at least
    check_pages(config, 1 << 10, 64, 1 << 20)
    with pytest.raises(ProtocolError, match="asks for 2147483647 KV pages"):
        check_pages(config, (1 << 31) - 1, 64, 1 << 40)
