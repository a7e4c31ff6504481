"""GGUF files as llama.cpp's own converter makes them of the folders that `transformers` saves:
those that people download. They have the logits of `transformers`, on one to three nodes. Needs
llama.cpp's source, whose folder LLAMA_CPP_SOURCE names, and PyTorch (the `train` extra)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import write_bpe_tokenizer
from tests.dllama.models.our_logits import compare
from tests.dllama.models.records import N_PROMPT, SHIFT, TOKENS
from tests.dllama.models.seeded_weights import reseed
from tests.dllama.models.transformers_cases import CASES, STATEFUL

SOURCE = os.environ.get("LLAMA_CPP_SOURCE", "")
pytestmark = pytest.mark.skipif(not SOURCE, reason="LLAMA_CPP_SOURCE names no source of llama.cpp")
LOST = {
    "mistral-window": "its files have no window, and llama.cpp computes full attention",
    "llama4-plain": "its files do not say that heads are not normed; Maverick's 128 experts do",
    "qwen3moe-plain": "its files do not say that weights are left as they are",
}
"""What a converted file no longer tells."""
UNKNOWN = {
    "ministral": "MinistralForCausalLM",
    "phimoe": "PhimoeForCausalLM",
    "phimoe-long": "PhimoeForCausalLM",
}
"""Cases whose class the converter does not know."""
CHANGES: dict[str, dict[str, object]] = {
    "gemma2": {"query_pre_attn_scalar": 16},  # of each head's size: no key tells another
    "gemma3": {
        "num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "granite4": {"intermediate_size": 320},
    "command-r-plus": {"tie_word_embeddings": True},
    "command-r7b": {"rotary_pct": 1.0},
    "llama4-scout": {"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1},
    "deepseek-v3": {"scoring_func": "sigmoid"},
    "deepseek-v3-plain": {"scoring_func": "sigmoid"},
    "deepseek-v2-lite": {"n_group": 1, "topk_group": 1},
    **{name: {"full_attention_interval": 4} for name in STATEFUL},
}  # fmt: skip
"""What the folders of the real ones have: the converter needs it, or takes it for granted."""


CONVERTED = [name for name in CASES if name not in LOST | UNKNOWN]
FUSED = ["llama", "qwen2", "qwen3", "mixtral", "qwen35moe"]
"""Cases whose queries, keys and values are put into one tensor too, and the experts of one."""


@pytest.mark.parametrize(
    ("name", "fuse"),
    [
        *((name, "") for name in CONVERTED),
        *((name, "qkv") for name in FUSED),
        ("qwen35moe", "experts"),
    ],
)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, fuse: str) -> None:
    pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")
    from tests.dllama.models.beside_transformers import save, their_logits

    folder, out = tmp_path / "toy", tmp_path / "toy.gguf"
    save(folder, CASES[name].model_type, CASES[name].config | CHANGES.get(name, {}))
    reseed(folder)
    convert(folder, out, fuse)
    shift = None if name in STATEFUL else SHIFT
    compare(out, their_logits(folder, TOKENS, shift), TOKENS, N_PROMPT, shift=shift)


def convert(folder: Path, out: Path, fuse: str = "") -> None:
    """Puts what `fuse` names into one tensor. Raises ValueError with what the converter said."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] == "granitemoehybrid":  # by their name in the files of its makers
        config["layer_types"] = ["attention"] * config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    write_bpe_tokenizer(folder, 352)  # some parameters are read together with one
    program = Path(__file__).with_name("llama_cpp_converter.py")
    ended = subprocess.run(
        [sys.executable, program, SOURCE, folder, out, fuse],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise ValueError(f"the converter ended with {ended.returncode}: {ended.stderr[-2000:]}")
