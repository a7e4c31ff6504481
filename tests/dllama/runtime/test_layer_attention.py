"""Layers of different attention in one model: windows, local rotary bases, no positions, soft caps,
scales. Against the float64 reference, with the same bits for every cut into steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.config import LayerAttention, RopeScaling, RopeScalingKind
from dllama.kv import KvShift
from dllama.kv_type import KvType
from dllama.rope import rotations
from kernels.gates import Gate
from tests.cluster.array_source import ArraySource, small_config
from tests.local_model import Ranks, make_step
from tests.references.forward import reference_logits

TOKENS = np.random.default_rng(0).integers(0, 100, 64).tolist()
EVERYTHING = small_config(
    n_layers=4,
    attention_layers=(
        LayerAttention(window=28),
        LayerAttention(window=33, has_local_rope=True),
        LayerAttention(is_rotated=False),
        LayerAttention(),
    ),
    rope_scaling=RopeScaling(RopeScalingKind.LINEAR, 2.0, 64),
    local_rope_theta=500.0,
    attention_scale=40.0,
    attention_softcap=1.0,
    final_softcap=0.3,
    embedding_scale=6.0,
    gate=Gate.GELU,
)


@pytest.fixture(params=[1, 3])
def ranks(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    group = ThreadGroup(request.param)
    comms = [ThreadCollective(group, rank) for rank in range(request.param)]
    found = Ranks(ArraySource(EVERYTHING), [1.0] * request.param, comms, kv_type=KvType.F32)
    yield found
    found.close()


def test_layers_that_differ_equal_the_reference(ranks: Ranks) -> None:
    """A prompt whole, in parts across the windows' edges, and token by token: steps of one row are
    captured and replayed."""
    expected = reference_logits(ranks.source, TOKENS)
    rows = ranks.run(make_step([(0, TOKENS, 0)], every_row=True))
    whole = np.array([row.logits for row in rows])
    np.testing.assert_allclose(whole, expected, atol=1e-4 * np.abs(expected).max())
    for cuts in ([0, 1, 64], [0, 27, 34, *range(40, 65)]):
        for first, end in itertools.pairwise(cuts):
            [row] = ranks.run(make_step([(1, TOKENS[first:end], first), (2, TOKENS[:7], 0)]))[:1]
            assert np.array_equal(row.logits, whole[end - 1]), (first, end)
    assert ranks.models[0].executor.n_graphs > 0


def test_each_field_changes_the_logits() -> None:
    """What the reference has left out would be no test."""
    whole = reference_logits(ArraySource(EVERYTHING), TOKENS)
    plain = {
        "attention_layers": (), "attention_scale": None, "attention_softcap": 0.0,
        "final_softcap": 0.0, "embedding_scale": 1.0, "gate": Gate.SILU,
        "local_rope_theta": 10000.0,
    }  # fmt: skip
    for name, value in plain.items():
        got = reference_logits(ArraySource(replace(EVERYTHING, **{name: value})), TOKENS)
        assert np.abs(got - whole).max() > 1e-3, name


def test_a_shift_turns_each_layer_by_its_own_angles(ranks: Ranks) -> None:
    """Moved keys are those of a rotation by hand; without positions they stay as they are."""
    model = ranks.models[0]
    ranks.run(make_step([(0, TOKENS[:40], 0)]))
    page = np.zeros(1, np.int32)
    n_heads, head_dim = model.state.kv.keys.shape[2], EVERYTHING.head_dim
    if n_heads == 0:
        return

    def first_page() -> np.ndarray:
        """The keys in page 0 of each layer, those with a window first."""
        both = [kv.keys[:, 0] for kv in (model.state.window_kv, model.state.kv)]
        return np.concatenate(both).view(np.float32).reshape(4, n_heads, head_dim, 32)

    keys = first_page()
    for each in ranks.models:
        each.shift(KvShift(32, 0, 5, page, page, page, page))
    moved = first_page()
    for layer, angles in enumerate(rotations(EVERYTHING).by_layer):
        a, b = np.split(keys[layer][..., 5:], 2, axis=1)
        cos, sin = np.cos(5 * angles)[:, None], np.sin(5 * angles)[:, None]
        want = np.concatenate([a * cos + b * sin, b * cos - a * sin], axis=1)
        np.testing.assert_allclose(moved[layer][..., :27], want, atol=1e-5)
    assert np.array_equal(moved[2][..., :27], keys[2][..., 5:])
