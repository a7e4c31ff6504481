"""The same bits on any number of nodes, for any cut: logits, denominators, candidates, states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.qtypes import QType
from dllama.step import Step
from dllama.weight_source import WeightSource
from kernels.formats import ALL_TYPES
from tests.cluster.array_source import small_config
from tests.dllama.sharding.test_block_cuts import BlockSource
from tests.local_model import Ranks, make_step
from tests.shared_data import shared_file
from tests.toy_models import write_toy

PROMPT = [int(t) for t in np.random.default_rng(3).integers(0, 352, 100)]
SHARES = [
    [1.0, 1.0],
    [1.0, 5.0],
    [1.0, 1.0, 1.0],
    [7.0, 1.0, 2.0],
    [1.0] * 4,
    [1.0, 2.0, 3.0, 4.0, 5.0],
    [1.0] * 8,
]
TYPES = [t for t in QType if t.name.lower() in ALL_TYPES]


def steps() -> list[Step]:
    """A long chunk of a prompt, the rest of it beside another sequence, then decoded rows."""
    wide = make_step([(0, PROMPT, 0)], every_row=True)
    wide = replace(wide, logits_at=wide.logits_at[-30:], candidates=wide.candidates[-30:])
    found = [wide, make_step([(0, PROMPT[:20], 100), (1, PROMPT[:9], 0)], candidates=5)]
    for i in range(6):
        both = make_step([(0, [i + 7], 120 + i), (1, [i + 3], 9 + i)], candidates=3 * (i % 2))
        found.append(replace(both, hidden_at=np.array([0, 1], np.int32)))
    return found


def bits(model: Path | WeightSource, shares: list[float]) -> list[bytes]:
    """Everything that rank 0 hands to the engine."""
    group = ThreadGroup(len(shares))
    ranks = Ranks(model, shares, [ThreadCollective(group, r) for r in range(len(shares))])
    found = []
    try:
        for step in steps():
            for row in ranks.run(step):
                assert np.isfinite(row.logits).all() and np.isfinite(row.log_sum_exp)
                ids = b"" if row.ids is None else row.ids.tobytes()
                found.append(ids + row.logits.tobytes() + np.float64(row.log_sum_exp).tobytes())
            found.append(ranks.models[0].hidden.tobytes())
    finally:
        ranks.close()
    return found


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_random_models_of_one_node_and_of_many(tmp_path: Path, shares: list[float]) -> None:
    """4 KV heads: of 8 nodes 4 hold none."""
    path = write_toy(
        tmp_path / "toy.gguf", qtype=QType.Q4_0, dim=128, n_heads=8, n_kv_heads=4, hidden_dim=512
    )
    assert bits(path, shares) == bits(path, [1.0])


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 5.0, 2.0]], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "llama",
        "qwen2",
        "qwen3",
        "phi3",
        "phimoe",
        "gemma3",
        "olmo2",
        "olmoe",
        "command-r",
        "llama4",
    ],
)
def test_every_family(tmp_path: Path, name: str, shares: list[float]) -> None:
    path = write_toy(tmp_path / "toy.gguf", arch=name, qtype=QType.Q8_0, n_kv_heads=4, seed=5)
    assert bits(path, shares) == bits(path, [1.0])


@pytest.mark.parametrize("qtype", TYPES, ids=lambda t: t.name)
def test_every_type(qtype: QType) -> None:
    """768 hidden columns are three blocks of 256 in units of 32: cut inside of blocks."""
    config = small_config(
        dim=256, hidden_dim=768, n_layers=2, n_heads=16, n_kv_heads=8, head_dim=32, vocab_size=352
    )
    other = QType.Q4_K if qtype is not QType.Q4_K else QType.F16
    source = BlockSource(config, [qtype, other], norm=0.01)
    whole = bits(source, [1.0])
    for shares in ([1.0, 1.0], [2.0, 1.0, 4.0]):
        assert bits(source, shares) == whole


@pytest.mark.parametrize("shares", SHARES[:5], ids=str)
def test_odd_sizes(tmp_path: Path, shares: list[float]) -> None:
    """Hidden columns in units of four, a vocabulary that is no multiple of 16, heads of 16."""
    path = write_toy(tmp_path / "toy.gguf", hidden_dim=172, vocab_size=355, n_kv_heads=4)
    assert bits(path, shares) == bits(path, [1.0])


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("model", ["packaged", "stories260K"])
def test_trained_models(model: str, shares: list[float]) -> None:
    path = DEFAULT_MODEL if model == "packaged" else shared_file("models/stories260K.gguf")
    assert bits(path, shares) == bits(path, [1.0])
