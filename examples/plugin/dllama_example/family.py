"""A family of models: Llama's tensors under another name. One that computes something else has half
layers of its own; CONTRIBUTING.md tells how."""

from __future__ import annotations

from dataclasses import replace

from dllama.models.llama import LLAMA

FAMILY = replace(
    LLAMA,
    arch="example-llama",  # `general.architecture` of its GGUF files
    title="Example Llama",
    hf_types=("example_llama",),  # `model_type` in config.json
    m_arch=None,
)
