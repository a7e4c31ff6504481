"""The rotary positions of a config.json, under the keys of GGUF's metadata.

Sources: `modeling_rope_utils.py` of `transformers` for keys, defaults and meanings. Newer files
have all of it in `rope_parameters`, older ones in `rope_theta` and `rope_scaling`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.window_keys import FULL, SLIDING

LONGROPE = "longrope"
_MOST_FACTORS = 1 << 12
_PLAIN = ("default", "dynamic")
"""Kinds that change nothing within the context that a model was trained for, which is all that is
served."""


def rope_metadata(
    config: Mapping[str, object], path: Path, head_dim: int, *, rounds_yarn: bool
) -> dict[str, object]:
    """Returns the keys of GGUF's metadata, after the architecture. `rounds_yarn` is the family's.
    Raises ModelFileError for kinds of scaling that this version does not compute."""
    rope = _rope(config, path)
    said = rope.values
    theta = said.get("rope_theta", config.get("rope_theta"))
    keys: dict[str, object] = (
        {} if theta is None else {"rope.freq_base": rope.checked(theta, "rope_theta")}
    )
    if (local := _local_theta(config, rope)) is not None:
        keys["rope.freq_base_swa"] = local
    part = said.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if part is not None:
        keys["rope.dimension_count"] = int(head_dim * rope.checked(part, "partial_rotary_factor"))
    kind = rope.kind
    if kind in _PLAIN:
        return keys
    if not isinstance(kind, str) or kind not in (*_READERS, LONGROPE):
        known = ", ".join((*_PLAIN, *_READERS, LONGROPE))
        raise ModelFileError(
            f"{path}: RoPE is scaled in the way {str(kind)[:80]!r}; this version knows {known}. "
            f"Use another model."
        )
    rounds = said.get("truncate", True)
    if kind == "yarn" and rounds is not rounds_yarn:
        raise ModelFileError(
            f"{path}: YaRN's `truncate` is {str(rounds).lower()[:80]}, which this version does not "
            f"compute for models of this kind. Use another model."
        )
    original = said.get("original_max_position_embeddings")
    if original is None:
        original = config.get("original_max_position_embeddings")
    if kind == LONGROPE:
        return keys | _longrope(rope, config.get("max_position_embeddings"), original)
    keys |= {"rope.scaling.type": kind, "rope.scaling.factor": rope.number("factor")}
    if original is not None:
        keys["rope.scaling.original_context_length"] = int(
            rope.checked(original, "original_max_position_embeddings")
        )
    if said.get("llama_4_scaling_beta"):  # Ministral 3's
        keys["attention.temperature_scale"] = rope.number("llama_4_scaling_beta")
    return keys | {f"rope.scaling.{key}": value for key, value in _READERS[kind](rope).items()}


def longrope_tables(
    config: Mapping[str, object], path: Path
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Returns LongRoPE's factors for short and for long contexts; None where there are none. Raises
    ModelFileError."""
    rope = _rope(config, path)
    if rope.kind != LONGROPE:
        return None
    return rope.table("short_factor"), rope.table("long_factor")


def _rope(config: Mapping[str, object], path: Path) -> _Rope:
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(said, Mapping) and FULL in said:  # of each kind of layers
        said = said[FULL] or {}
    if not isinstance(said, Mapping):
        raise ModelFileError(f"{path}: its rope_scaling is no object; download it again.")
    return _Rope(said, path)


def _local_theta(config: Mapping[str, object], rope: _Rope) -> float | None:
    """Returns the rotary base of layers with a window, where it is told; they have no scaling.
    Raises ModelFileError where they have one."""
    said = config.get("rope_parameters")
    local = said.get(SLIDING) if isinstance(said, Mapping) else None
    if not isinstance(local, Mapping):
        theta = config.get("rope_local_base_freq")
        return None if theta is None else rope.checked(theta, "rope_local_base_freq")
    if _Rope(local, rope.path).kind not in _PLAIN:
        raise rope.wrong(local.get("rope_type"), f"rope_type of {SLIDING}", " or ".join(_PLAIN))
    theta = local.get("rope_theta")
    return None if theta is None else rope.checked(theta, f"rope_theta of {SLIDING}")


class _Rope:
    """The numbers of one scaling, with their checks."""

    def __init__(self, values: Mapping[str, object], path: Path) -> None:
        self.values, self.path = values, path

    @property
    def kind(self) -> object:
        kind = self.values.get("rope_type", self.values.get("type", "default"))
        return LONGROPE if kind == "su" else kind  # as the first files called it

    def number(self, key: str, default: float | None = None) -> float:
        """Returns a number above 0; null and absence are the same."""
        value = self.values.get(key)
        return self.checked(default if value is None else value, key)

    def checked(self, value: object, key: str) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and number > 0:
                return number
        raise self.wrong(value, key, "a number above 0")

    def table(self, key: str) -> tuple[float, ...]:
        """Returns a list of numbers above 0, as GGUF files hold them."""
        values = self.values.get(key)
        if not isinstance(values, list) or not 0 < len(values) <= _MOST_FACTORS:
            raise self.wrong(values, key, "a list of numbers")
        numbers = [self.checked(value, key) for value in values]
        return tuple(np.array(numbers, np.float32).tolist())

    def wrong(self, value: object, key: str, expected: str) -> ModelFileError:
        """Returns the error of a value that cannot be."""
        return ModelFileError(
            f"{self.path}: the rope value {key} is {str(value)[:80]!r}; expected {expected}. "
            f"Download it again, or use another model."
        )


def _longrope(rope: _Rope, context: object, original: object) -> dict[str, object]:
    trained = rope.checked(original, "original_max_position_embeddings")
    factor = rope.number("factor", rope.checked(context, "max_position_embeddings") / trained)
    magnitude = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    magnitude = rope.number("attention_factor", magnitude)
    short, long = (rope.number(f"{which}_mscale", magnitude) for which in ("short", "long"))
    if short != long:  # of Phi-3.5-MoE
        raise rope.wrong(long, "long_mscale", f"that of short contexts, {short:g}")
    return {
        "rope.scaling.original_context_length": int(trained),
        "rope.scaling.attn_factor": short,
    }


def _linear(rope: _Rope) -> dict[str, object]:
    return {}


def _llama3(rope: _Rope) -> dict[str, object]:
    return {
        "low_freq_factor": rope.number("low_freq_factor"),
        "high_freq_factor": rope.number("high_freq_factor"),
    }


def _yarn(rope: _Rope) -> dict[str, object]:
    keys: dict[str, object] = {
        "yarn_beta_fast": rope.number("beta_fast", 32.0),
        "yarn_beta_slow": rope.number("beta_slow", 1.0),
    }
    factor = rope.number("factor")
    magnitude = _magnitude(rope, factor)
    if magnitude is not None:
        keys["attn_factor"] = magnitude / _mscale(factor, 1.0)
    return keys


def _magnitude(rope: _Rope, factor: float) -> float | None:
    """Returns what cosines and sines are multiplied by; None for YaRN's own 0.1 ln(factor) + 1."""
    if rope.values.get("attention_factor") is not None:
        return rope.number("attention_factor")
    if rope.values.get("mscale") and rope.values.get("mscale_all_dim"):
        above, below = rope.number("mscale"), rope.number("mscale_all_dim")
        return _mscale(factor, above) / _mscale(factor, below)
    return None


def _mscale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


_READERS = {"linear": _linear, "llama3": _llama3, "yarn": _yarn}
