"""Families of latent attention against `transformers`: folders that it has saved, and GGUF files
made of them, give its logits. Needs PyTorch (the `train` extra)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")

from dllama.formats import open_model
from dllama.formats.checkpoint.source import checkpoint_metadata
from dllama.formats.writing.convert import write_gguf
from tests.dllama.models.beside_transformers import compare, random_model

TOKENS = np.random.default_rng(1).integers(0, 352, 40).tolist()
SIZES = {
    "hidden_size": 64, "intermediate_size": 224, "num_hidden_layers": 3, "vocab_size": 352,
    "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "kv_lora_rank": 32,
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 32, "v_head_dim": 24, "n_routed_experts": 8,
    "num_experts_per_tok": 3, "moe_intermediate_size": 160, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "n_group": 4, "topk_group": 2,
}  # fmt: skip
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 32.0, "beta_slow": 1.0,
    "mscale": 0.7, "mscale_all_dim": 0.7, "original_max_position_embeddings": 32,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "v3": ("deepseek_v3", {"q_lora_rank": 48, "rope_parameters": YARN}),
    "v3-plain": (
        "deepseek_v3",
        {"q_lora_rank": None, "rope_parameters": PLAIN, "norm_topk_prob": False, "n_group": 1,
         "topk_group": 1},
    ),
    "v2": (
        "deepseek_v2",
        {"q_lora_rank": 48, "rope_parameters": YARN, "topk_method": "group_limited_greedy"},
    ),
    "v2-lite": (
        "deepseek_v2", {"q_lora_rank": None, "rope_parameters": YARN, "topk_method": "greedy"},
    ),
}  # fmt: skip


def saved(folder: Path, model_type: str, more: dict[str, object]) -> np.ndarray:
    """Saves a random model; returns its logits after each of TOKENS."""
    model, expected = random_model(model_type, {**SIZES, **more}, TOKENS)
    model.save_pretrained(folder)
    return expected


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """Of a prompt and of single tokens, on one to three nodes."""
    expected = saved(tmp_path / "toy", *CASES[name])
    compare(tmp_path / "toy", expected, TOKENS, n_prompt=25)
    out = tmp_path / "toy.gguf"
    write_gguf(open_model(tmp_path / "toy"), checkpoint_metadata(tmp_path / "toy"), out)
    compare(out, expected, TOKENS, n_prompt=25)
