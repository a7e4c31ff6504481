"""What a config.json says of gated delta nets beside the layers that attend, under the keys of
GGUF's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.models.family import Family

DELTA, FULL = "linear_attention", "full_attention"
INTERVAL = "full_attention_interval"


def has_delta_nets(family: Family) -> bool:
    """Returns whether layers of a family may be gated delta nets."""
    return INTERVAL in family.hf_keys


def delta_metadata(config: Mapping[str, object], family: Family, path: Path) -> dict[str, object]:
    """Returns the keys of GGUF's metadata, after the architecture, that no key of config.json says
    by itself. Raises ModelFileError for layers in another order than is computed."""
    if not has_delta_nets(family):
        return {}
    keys: dict[str, object] = {}
    value_dim, n_heads = (
        config.get(f"linear_{key}") for key in ("value_head_dim", "num_value_heads")
    )
    if type(value_dim) is int and type(n_heads) is int:
        keys["ssm.inner_size"] = value_dim * n_heads
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        keys[INTERVAL] = _interval(kinds, path)
    return keys


def _interval(kinds: Sequence[object], path: Path) -> int:
    """Returns n where every n-th layer attends."""
    n = kinds.index(FULL) + 1 if FULL in kinds else len(kinds) + 1
    if kinds != [DELTA if (i + 1) % n else FULL for i in range(len(kinds))]:
        raise ModelFileError(
            f"{path}: layer_types has layers that attend at other places than every {n}th, which "
            "this version does not compute. Use another model."
        )
    return n
