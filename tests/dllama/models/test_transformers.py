"""Every family against `transformers`: a tiny random model of theirs, its weights by the names of
our tables, the same logits. Needs PyTorch (the `train` extra)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")

from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from benchmarks.writers.filler_vocabulary import bpe_metadata  # noqa: E402
from dllama.config import ModelConfig  # noqa: E402
from dllama.formats.writing.encode import encode  # noqa: E402
from dllama.formats.writing.gguf_export import in_file_order, model_stream  # noqa: E402
from dllama.models import FAMILIES, model_tensors  # noqa: E402
from dllama.qtypes import QType  # noqa: E402
from tests.local_model import local_runner, make_step  # noqa: E402

TOKENS = np.random.default_rng(1).integers(0, 352, 40).tolist()
SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "vocab_size": 352,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
EXTRA = {"exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 2}}


@pytest.mark.parametrize("arch", FAMILIES)
def test_logits_are_those_of_transformers(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(arch, **SIZES, **EXTRA.get(arch, {}))
    theirs = AutoModelForCausalLM.from_config(config).eval().to(torch.float32)
    with torch.no_grad():
        for parameter in theirs.parameters():  # far from the tame values of a fresh model
            parameter.copy_(
                torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
                if parameter.dim() > 1
                else 1 + 0.1 * torch.randn_like(parameter)
            )
        expected = theirs(torch.tensor([TOKENS])).logits[0].numpy()
    ours = ModelConfig(
        arch=arch, name=arch, dim=64, hidden_dim=160, n_layers=2, n_heads=4, n_kv_heads=2,
        head_dim=16, vocab_size=352, max_seq_len=256, norm_epsilon=1e-5, rope_theta=10000.0,
        **FAMILIES[arch].always,
    )  # fmt: skip
    path, state = tmp_path / "toy.gguf", theirs.state_dict()
    with model_stream(path, ours, QType.F32, lambda _: QType.F32, bpe_metadata(352)) as out:
        for name, tensor in model_tensors(ours).items():
            layer = name.split(".")[1] if name.startswith("layers.") else None
            values = state[tensor.hf if layer is None else f"model.layers.{layer}.{tensor.hf}"]
            rows = values.numpy().reshape(tensor.shape(ours))
            out.write(encode(in_file_order(ours, name, rows), QType.F32))
    with local_runner(path) as runner:
        rows = runner.run(make_step([(0, TOKENS, 0)], every_row=True))
    got = np.array([row.logits for row in rows])
    # Keys and values are kept in half floats here.
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())
