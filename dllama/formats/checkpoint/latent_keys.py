"""What a config.json says of multi-head latent attention and of the routers beside it, under the
keys of GGUF's metadata.

Sources: the configuration classes of `transformers`, and the converter of llama.cpp, which tells of
the one key/value head that the heads share, and beside it of the sizes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dllama.config import Gating
from dllama.errors import ModelFileError
from dllama.models.experts import GATING_NUMBERS
from dllama.models.family import Family
from dllama.models.latent import LATENT_ATTENTION, LOG_MULTIPLIER

_SCORES = {"deepseek_v2": Gating.SOFTMAX, "deepseek_v3": Gating.SIGMOID, "kimi_k2": Gating.SIGMOID}
"""How experts are weighed where the file does not tell (`scoring_func`)."""

_CHOICES = ("greedy", "group_limited_greedy", "noaux_tc", None)
"""The ways to choose experts (`topk_method`): among all, or among those of the best groups."""


def latent_metadata(config: Mapping[str, object], family: Family, path: Path) -> dict[str, object]:
    """Returns the keys of GGUF's metadata, after the architecture, of a family with latent
    attention; none of others. Raises ModelFileError for what is not computed."""
    if family.attention is not LATENT_ATTENTION:
        return {}
    rank, rotated, nope, value = (
        _size(config, key, path)
        for key in ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    )
    keys: dict[str, object] = {
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rotated, "attention.value_length": rank,
        "attention.key_length_mla": nope + rotated, "attention.value_length_mla": value,
        "rope.dimension_count": rotated,
    }  # fmt: skip
    if config.get("rope_interleave") is False:
        raise _foreign("rope_interleave", False, path)
    return keys | _router(config, path) | _growth(config, path)


def _router(config: Mapping[str, object], path: Path) -> dict[str, object]:
    choice, kind = config.get("topk_method"), str(config["model_type"])
    if choice not in _CHOICES:
        raise _foreign("topk_method", choice, path)
    said = config.get("scoring_func", _SCORES[kind])
    if said not in GATING_NUMBERS:
        raise _foreign("scoring_func", said, path)
    keys: dict[str, object] = {"expert_gating_func": GATING_NUMBERS[Gating(str(said))]}
    if choice == "greedy" or config.get("n_group") is None:
        keys |= {"expert_group_count": 1, "expert_group_used_count": 1}
    return keys


def _growth(config: Mapping[str, object], path: Path) -> dict[str, object]:
    """Returns what makes scores larger under YaRN. Cosines and sines are not made larger then."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or not rope.get("mscale_all_dim"):
        return {}
    mscale = rope["mscale_all_dim"]
    if rope.get("mscale") != mscale or type(mscale) not in (int, float):
        raise _foreign("mscale", rope.get("mscale"), path)
    return {LOG_MULTIPLIER: 0.1 * float(str(mscale))}


def _size(config: Mapping[str, object], key: str, path: Path) -> int:
    value = config.get(key)
    if type(value) is int and 0 < value < 1 << 20:
        return value
    raise ModelFileError(
        f"{path} says {key} is {str(value)[:80]!r}; expected a whole number from 1 on. Download it "
        "again, or use another model."
    )


def _foreign(key: str, value: object, path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path}: {key} is {str(value)[:80]!r}, which this version does not compute for models of "
        "this type. Use another model."
    )
