"""Models with gated delta nets against `transformers`: a tiny random model of theirs, saved as they
save it, read as a folder. Needs PyTorch (the `train` extra)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")

from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from tests.dllama.models.beside_transformers import compare  # noqa: E402

TOKENS = np.random.default_rng(1).integers(0, 352, 80).tolist()
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "vocab_size": 352,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "tie_word_embeddings": False, "full_attention_interval": 2,
    "rope_parameters": {
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    },
    "linear_num_key_heads": 4, "linear_num_value_heads": 8, "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
}  # fmt: skip
EXPERTS = {
    "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 96,
    "shared_expert_intermediate_size": 192,
}  # fmt: skip
CASES: dict[str, dict[str, object]] = {
    "qwen3_next": EXPERTS,
    "qwen3_5_text": {},
    "qwen3_5_moe_text": EXPERTS,
}


def saved(folder: Path, model_type: str) -> np.ndarray:
    """Writes a random model; returns its logits after each of TOKENS."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **CASES[model_type]})
    theirs = AutoModelForCausalLM.from_config(config).eval().to(torch.float32)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # far from a fresh model's tame values
            noise = torch.randn_like(parameter)
            spread = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
            is_whole = parameter.dim() == 1 and "linear_attn.norm" in name
            parameter.copy_(is_whole + spread * noise)
        for layer in theirs.model.layers:
            if hasattr(layer, "linear_attn"):
                layer.linear_attn.A_log.uniform_(-3, 1)
        expected: np.ndarray = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    theirs.save_pretrained(folder)
    return expected


@pytest.mark.parametrize("model_type", CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    """Of a prompt and of single tokens, on one to three nodes."""
    expected = saved(tmp_path / "model", model_type)
    compare(tmp_path / "model", expected, TOKENS, n_prompt=60)
