"""The families of models that can be computed: one module and one row each."""

from __future__ import annotations

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.models.command_r import COHERE2, COMMAND_R
from dllama.models.deepseek2 import DEEPSEEK2
from dllama.models.exaone4 import EXAONE4
from dllama.models.family import Family
from dllama.models.gemma import GEMMA2, GEMMA3
from dllama.models.glm4 import CHATGLM, GLM4
from dllama.models.glm4moe import GLM4MOE
from dllama.models.gpt_oss import GPT_OSS
from dllama.models.granite import GRANITE, GRANITE_MOE
from dllama.models.llama import LLAMA
from dllama.models.llama4 import LLAMA4
from dllama.models.mistral3 import MISTRAL3
from dllama.models.olmo2 import OLMO2
from dllama.models.olmoe import OLMOE
from dllama.models.phi3 import PHI3
from dllama.models.phimoe import PHIMOE
from dllama.models.qwen2 import QWEN2
from dllama.models.qwen2moe import QWEN2MOE
from dllama.models.qwen3 import QWEN3
from dllama.models.qwen3moe import QWEN3MOE
from dllama.models.qwen3next import QWEN3NEXT
from dllama.models.qwen35 import QWEN35, QWEN35MOE
from dllama.models.smollm3 import SMOLLM3
from dllama.models.tensors import Tensor
from dllama.models.unsupported import KINDS
from dllama.plugins import MODELS, load_all

FAMILIES: dict[str, Family] = {
    family.arch: family
    for family in (
        LLAMA,
        QWEN2,
        QWEN3,
        QWEN2MOE,
        QWEN3MOE,
        QWEN3NEXT,
        QWEN35,
        QWEN35MOE,
        EXAONE4,
        MISTRAL3,
        GPT_OSS,
        PHI3,
        PHIMOE,
        GEMMA2,
        GEMMA3,
        SMOLLM3,
        GRANITE,
        GRANITE_MOE,
        OLMO2,
        OLMOE,
        CHATGLM,
        GLM4,
        GLM4MOE,
        LLAMA4,
        COMMAND_R,
        COHERE2,
        DEEPSEEK2,
    )
}
"""By `general.architecture`; plugins add theirs."""
FAMILIES |= {
    family.arch: family for family in load_all(MODELS, Family, lambda family: family.arch, FAMILIES)
}


def unknown_family(path: object, found: str, name: object) -> ModelFileError:
    """Returns the error of a model that `found` tells of, which calls its kind `name`."""
    titles = ", ".join(family.title for family in FAMILIES.values())
    kind = KINDS.get(name, "") if isinstance(name, str) else ""
    return ModelFileError(
        f"{path} {found}{f': {kind}' if kind else ', which is unknown here'}. This "
        f"version runs {titles}; use a model of one of these families."
    )


def model_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor of a model by its full name: `embed`, `norm`, `wcls`, `layers.{i}.wq` …"""
    family = FAMILIES[config.arch]
    tensors = {t.name: t for t in family.model_tensors(config)}
    for i in range(config.n_layers):
        tensors |= {f"layers.{i}.{t.name}": t for t in family.layer_tensors(config, i)}
    return tensors


def model_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Every tensor of a model by its full name, as (rows, cols); vectors have one row."""
    return {name: tensor.shape(config) for name, tensor in model_tensors(config).items()}
