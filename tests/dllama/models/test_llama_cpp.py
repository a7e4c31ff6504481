"""The same GGUF files in llama.cpp: a model of every family but one, windows and scaled rotations
included, has the logits that llama.cpp computes, on one to three nodes, in a prompt, token by token
and after a context shift. `OTHERWISE` and `SHIFTED_OTHERWISE` have the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python comes with the `peers` extra")

from dllama.config import (
    LayerAttention,
    QueryGrowth,
    RopeScaling,
    RopeScalingKind,
)
from dllama.models import FAMILIES
from tests.dllama.formats.crafted import rewrite
from tests.dllama.models.beside_llama_cpp import llama_cpp_logits
from tests.dllama.models.our_logits import Shift, compare
from tests.dllama.runtime.test_forward import EXAONE4_LAYERS, VARIANTS
from tests.toy_models import DELTA, write_toy

TOKENS = np.random.default_rng(1).integers(0, 300, 40).tolist()
N_PROMPT = 25
SHIFT = Shift(at=33, n_keep=5, n_drop=13)

OTHERWISE = {
    "phimoe": "it chooses experts by a softmax, and its norms leave the mean in",
    "mistral-window": "it computes windows of a llama as full attention",
    "llama3-scaling": "files for it have a table of factors, as `rope-factors` here",
}
"""What llama.cpp does otherwise than the models' makers do, or than our toys are written."""
SHIFTED_OTHERWISE = {
    **dict.fromkeys(
        ("exaone4-32b", "smollm3", "cohere2", "llama4"), "it turns layers without rotation too"
    ),
    **dict.fromkeys(
        ("yarn", "olmo3", "phi3", "phi3-short"), "it scales keys that it turns once more"
    ),
    **dict.fromkeys(DELTA, "states have no shift"),
}
"""What it does otherwise than `transformers` (test_transformers.py) where a context is full."""
CASES: dict[str, dict[str, object]] = {
    **VARIANTS,
    **{
        # States of as many values as keys, as llama.cpp takes them.
        arch: {"arch": arch, "n_layers": 4, "seed": 2, "delta": replace(sizes, value_dim=16)}
        for arch, sizes in DELTA.items()
    },
}
CHANGES: dict[str, dict[str, object]] = {
    "gemma2": {"tied": True, "attention_scale": None},
    "gemma3": {"tied": True},
    # Of so many layers only, as the models' are.
    "exaone4-32b": {"n_layers": 64, "attention_layers": EXAONE4_LAYERS * 16},
    "command-r-plus": {"n_layers": 64, "tied": True},
    # What attention is scaled by follows from YaRN's keys there, which a toy's 0.2 does not; and
    # groups of experts are chosen by their best two, as V3 does and V2 does not.
    "deepseek2-lite": {"n_layers": 27, "rope_scaling": None, "attention_scale": None,
                       "n_expert_groups": 1, "n_active_groups": 1},
    # Short factors serve contexts of at least 256 there.
    "phi3-short": {"max_seq_len": 512,
                   "rope_scaling": RopeScaling(RopeScalingKind.LONGROPE, 1.0, 512,
                                               attention_factor=1.125)},
    "olmoe": {"n_kv_heads": 4},
    "qwen2moe": {"expert_scale": 1.0},
    "glm4moe-plain": {"has_choice_bias": True},
    # It rounds the ends of YaRN's ramp, which this model's makers do not.
    "gpt-oss": {"rope_scaling": None,
                "attention_layers": (LayerAttention(window=20), LayerAttention())},
    # Its chunks and what queries grow by are constants there.
    "llama4": {
        "attention_layers": (*(LayerAttention(window=8192, is_chunked=True),) * 3,
                             LayerAttention(is_rotated=False)),
        "query_growth": QueryGrowth(0.1, 8192),
    },
}  # fmt: skip
LOOSER = {"gemma2": 1e-3, "gemma3": 1e-3, **dict.fromkeys(DELTA, 1e-3)}
"""Gates from a table of half floats; states of 64 tokens at a time."""


@pytest.mark.parametrize("name", [name for name in CASES if name not in OTHERWISE])
def test_logits_are_those_of_llama_cpp(tmp_path: Path, name: str) -> None:
    path = write_toy(tmp_path / "toy.gguf", **(CASES[name] | CHANGES.get(name, {})))  # type: ignore[arg-type]
    if name.startswith("phi3"):
        # By its name llama.cpp takes it for one with the special tokens of the real ones.
        path = rewrite(path, tmp_path / "named.gguf", metadata={"general.name": "toy"})
    shift = None if name in SHIFTED_OTHERWISE else SHIFT
    expected = llama_cpp_logits(path, TOKENS, N_PROMPT, shift)
    compare(path, expected, TOKENS, N_PROMPT, shift=shift, within=LOOSER.get(name, 1e-4))


def test_every_family_is_compared_but_one() -> None:
    compared = {str(CASES[name].get("arch", "llama")) for name in CASES if name not in OTHERWISE}
    assert compared == set(FAMILIES) - {"phimoe"}
