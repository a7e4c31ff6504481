"""The forward pass against the float64 reference, and its invariants, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import SoloCollective
from dllama.config import LayerAttention, QueryGrowth, RopeScaling, RopeScalingKind
from dllama.formats import open_model
from dllama.kv_type import KvType
from dllama.qtypes import QType
from tests.cluster.array_source import ArraySource, small_config
from tests.dllama.runtime.same_logits import batches_equal_singles, chunks_equal_the_whole
from tests.local_model import Ranks, load_whole, local_runner, make_step
from tests.references.forward import reference_logits, tensor_values
from tests.shared_data import shared_file
from tests.toy_models import GRANITE, LONGROPE, MIXTRAL, V2_LITE, write_toy

TOKENS = list(np.random.default_rng(0).integers(0, 352, 60))
LLAMA3 = RopeScaling(RopeScalingKind.LLAMA3, 8.0, 32, 1.0, 4.0)
YARN = RopeScaling(RopeScalingKind.YARN, 4.0, 64)

EXAONE4_LAYERS = (*(LayerAttention(window=20),) * 3, LayerAttention(is_rotated=False))

MISTRAL3 = {
    "rope_scaling": replace(YARN, original_max_seq_len=20, attention_factor=1.0),
    "query_growth": QueryGrowth(0.5, 20, first=0, is_everywhere=True),
}  # fmt: skip

VARIANTS = {
    "llama": {},
    "llama-tied": {"tied": True},
    "llama3-scaling": {"rope_scaling": LLAMA3},
    "linear-scaling": {"rope_scaling": RopeScaling(RopeScalingKind.LINEAR, 2.0, 64)},
    "yarn": {"rope_scaling": YARN},
    "rope-factors": {"rope_factors": tuple(1.0 + i / 4 for i in range(8))},
    "qwen2": {"arch": "qwen2"},
    "qwen3": {"arch": "qwen3", "head_dim": 32},
    "exaone4": {"arch": "exaone4", "rope_factors": tuple(1.0 + i / 2 for i in range(8))},
    "phi3": {"arch": "phi3", **LONGROPE},
    "mistral3": {"arch": "mistral3", **MISTRAL3},
    "mistral-window": {"attention_layers": (LayerAttention(window=20),) * 2},
    "exaone4-32b": {"arch": "exaone4", "n_layers": 4, "attention_layers": EXAONE4_LAYERS},
    "gemma2": {
        "arch": "gemma2",
        "attention_layers": (LayerAttention(window=20), LayerAttention()),
        "attention_scale": 0.2,
        "attention_softcap": 5.0,
        "final_softcap": 8.0,
    },
    "gemma3": {
        "arch": "gemma3",
        "rope_scaling": RopeScaling(RopeScalingKind.LINEAR, 2.0, 64),
        "attention_layers": (LayerAttention(window=20, has_local_rope=True), LayerAttention()),
        "local_rope_theta": 100.0,
    },
    "smollm3": {"arch": "smollm3", "n_layers": 4},
    "phi3-short": {"arch": "phi3", "max_seq_len": 64, **LONGROPE},
    "granite": {"arch": "granite", **GRANITE},
    "olmo2": {"arch": "olmo2"},
    "olmo3": {
        "arch": "olmo2",
        "rope_scaling": YARN,
        "attention_layers": (LayerAttention(window=20, has_local_rope=True), LayerAttention()),
    },
    "chatglm": {"arch": "chatglm", "partial_rotary_dim": 8, "has_qkv_bias": True},
    "glm4": {"arch": "glm4", "partial_rotary_dim": 8},
    "command-r": {"arch": "command-r", "tied": True, "logit_scale": 0.5},
    "command-r-plus": {"arch": "command-r", "has_qk_norm": True},
    "cohere2": {
        "arch": "cohere2",
        "tied": True,
        "attention_layers": (LayerAttention(window=20), LayerAttention(is_rotated=False)),
    },
    "granitemoe": {"arch": "granitemoe", "seed": 2, "shared_hidden_dim": 320, **GRANITE},
    "olmoe": {"arch": "olmoe", "seed": 2},
    "phimoe": {"arch": "phimoe", "seed": 2},
    "llama4": {"arch": "llama4", "n_layers": 4},
    # Of other seeds a row takes another expert where two logits of a router are nearly equal.
    "qwen3moe": {"arch": "qwen3moe", "seed": 2},
    "qwen2moe": {"arch": "qwen2moe", "seed": 2, "expert_scale": 1.5},
    "mixtral": {"seed": 2, **MIXTRAL},
    "gpt-oss": {"arch": "gpt-oss", "seed": 2, "rope_scaling": replace(YARN, is_rounded=False)},
    "glm4moe": {"arch": "glm4moe", "seed": 2},
    "glm4moe-plain": {
        "arch": "glm4moe",
        "seed": 3,
        "has_qkv_bias": False,
        "has_qk_norm": False,
        "has_choice_bias": False,
        "n_expert_groups": 1,
        "n_active_groups": 1,
        "n_layers": 3,
    },
    "deepseek2": {"arch": "deepseek2", "seed": 2},
    "deepseek2-lite": {"arch": "deepseek2", "seed": 2, **V2_LITE},
    "one-kv-head": {"n_kv_heads": 1},
    "no-groups": {"n_kv_heads": 4},
    "odd-hidden": {"hidden_dim": 172},
    "wide-group": {"n_heads": 12, "n_kv_heads": 1, "head_dim": 16, "dim": 64},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_architecture_equals_the_reference(tmp_path: Path, name: str) -> None:
    path = write_toy(tmp_path / "toy.gguf", **VARIANTS[name])
    expected = reference_logits(open_model(path), TOKENS)
    # With half floats a row near a tie of two experts may take the other one.
    with local_runner(path, threads=2, kv_type=KvType.F32) as runner:
        rows = runner.run(make_step([(0, TOKENS, 0)], every_row=True))
    got = np.array([r.logits for r in rows])
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("arch", ["command-r", "phimoe"])
def test_last_states_are_what_the_head_reads(tmp_path: Path, arch: str) -> None:
    """Norms that take the mean off, with and without a bias."""
    path = write_toy(tmp_path / "toy.gguf", arch=arch)
    source = open_model(path)
    ranks = Ranks(path, [1.0], [SoloCollective()])
    try:
        [row] = ranks.run(replace(make_step([(0, TOKENS, 0)]), hidden_at=np.array([59], np.int32)))
        [state] = ranks.models[0].hidden.copy()
    finally:
        ranks.close()
    bias = tensor_values(source, "wcls_bias")[0] if "wcls_bias" in source.tensors else 0.0
    logits = tensor_values(source, "wcls") @ state + bias
    np.testing.assert_allclose(row.logits, logits, atol=1e-4 * np.abs(logits).max())


def test_a_part_of_each_head_may_be_rotated() -> None:
    config = small_config(head_dim=16, partial_rotary_dim=8)
    source = ArraySource(config)
    tokens = [t % config.vocab_size for t in TOKENS]
    expected = reference_logits(source, tokens)
    turned = replace(config, partial_rotary_dim=None)
    assert np.abs(expected - reference_logits(ArraySource(turned), tokens)).max() > 1e-3
    model = load_whole(source)
    try:
        step = make_step([(0, tokens, 0)], every_row=True)
        rows = model.forward(step, source.read("embed")[tokens], SoloCollective())
    finally:
        model.close()
    assert rows is not None
    got = np.array([row.logits for row in rows])
    np.testing.assert_allclose(got, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize("qtype", [QType.F16, QType.BF16, QType.Q8_0, QType.Q4_0])
def test_every_type_is_near_the_reference(tmp_path: Path, qtype: QType) -> None:
    """The reference has the file's exact weights but no int8 activations."""
    path = write_toy(tmp_path / "toy.gguf", qtype=qtype)
    expected = reference_logits(open_model(path), TOKENS)
    with local_runner(path) as runner:
        rows = runner.run(make_step([(0, TOKENS, 0)], every_row=True))
    got = np.array([r.logits for r in rows])
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < 0.05, error


def test_both_file_formats_give_the_same_logits(tmp_path: Path) -> None:
    logits = []
    for fmt in ("gguf", "m"):
        path = write_toy(tmp_path / f"toy.{fmt}", fmt=fmt, qtype=QType.Q8_0)
        with local_runner(path) as runner:
            [row] = runner.run(make_step([(0, TOKENS, 0)]))
            logits.append(row.logits.copy())
    assert np.array_equal(*logits)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf", qtype=QType.Q4_0)


def test_chunks_equal_the_whole(toy: Path) -> None:
    chunks_equal_the_whole(toy, TOKENS, ([0, 1, 60], [0, 33, 40, 60], range(61)), threads=1)


def test_a_batch_equals_singles(toy: Path) -> None:
    batches_equal_singles(toy, TOKENS)


def test_candidates_are_the_best_of_the_row(toy: Path) -> None:
    with local_runner(toy) as runner:
        [row] = runner.run(make_step([(0, TOKENS, 0)]))
        [best] = runner.run(make_step([(0, TOKENS, 0)], candidates=40))
    assert row.ids is None and best.ids is not None
    order = np.lexsort((np.arange(352), -row.logits))[:40]
    assert np.array_equal(best.ids, order)
    assert np.array_equal(best.logits, row.logits[order])
    exact = np.log(np.exp(row.logits.astype(np.float64)).sum())
    assert abs(best.log_sum_exp - exact) < 1e-5 and best.log_sum_exp == row.log_sum_exp


SHARES = {
    "two": [1, 1], "three": [1, 1, 1], "uneven": [3, 2, 1], "five": [1] * 5, "lopsided": [9, 1],
}  # fmt: skip


@pytest.mark.parametrize("shares", SHARES.values(), ids=SHARES)
@pytest.mark.parametrize(
    ("arch", "qtype"), [("llama", QType.F32), ("llama", QType.Q4_0), ("exaone4", QType.F32)]
)
def test_n_ranks_equal_one(tmp_path: Path, shares: list[float], arch: str, qtype: QType) -> None:
    """Five nodes are more than the model has key/value heads."""
    path = write_toy(
        tmp_path / "toy.gguf", arch=arch, qtype=qtype, n_heads=8, n_kv_heads=4, hidden_dim=320
    )
    with local_runner(path) as runner:
        [whole] = runner.run(make_step([(0, TOKENS, 0)]))
        [best] = runner.run(make_step([(0, TOKENS, 0)], candidates=20))
    group = ThreadGroup(len(shares))
    ranks = Ranks(path, shares, [ThreadCollective(group, i) for i in range(len(shares))])
    try:
        [row] = ranks.run(make_step([(0, TOKENS, 0)]))
        [some] = ranks.run(make_step([(0, TOKENS, 0)], candidates=20))
    finally:
        ranks.close()
    # A residual stream without norms before its readers lets a rounded key or value grow.
    assert np.abs(row.logits - whole.logits).max() < (1e-4 if arch == "llama" else 3e-4)
    assert some.ids is not None and best.ids is not None
    assert np.array_equal(some.ids, best.ids)
    residuals = [m.state.x[: len(TOKENS)] for m in ranks.models]
    for residual in residuals[1:]:
        assert np.array_equal(residual, residuals[0]), "ranks must hold the same bits"


def test_the_real_model_tells_its_story() -> None:
    path = shared_file("models/stories260K.gguf")
    with local_runner(path) as runner:
        tokens, text = [1, 403, 407, 261, 378], []
        [row] = runner.run(make_step([(0, tokens, 0)], candidates=1))
        for position in range(5, 64):
            text.append(int(row.ids[0]))
            [row] = runner.run(make_step([(0, text[-1:], position)], candidates=1))
    pieces = open_model(path).metadata["tokenizer.ggml.tokens"]
    story = "".join(pieces[i] for i in text).replace("▁", " ")
    assert story.startswith(
        ", there was a little girl named Lily. She loved to play outside in the park. One day, "
        "she saw a big, red ball. She wanted to play with it, but it was too high."
    )
