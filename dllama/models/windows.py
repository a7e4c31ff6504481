"""Sliding windows: which layers of a model have one, by its metadata and by its family's rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dllama.config import LayerAttention
from dllama.errors import ModelFileError

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


class WindowRule(NamedTuple):
    """How the layers of a family's models with a window differ. Files may say another pattern."""

    every: int = 0  # of so many layers the last one sees everything; 0: all have the window
    default: int = 0  # the window where a file says none; 0: there is none
    turns_full_layers: bool = True  # layers that see everything have rotary positions
    has_local_rope: bool = False  # layers with a window turn by a base of their own, unscaled
    is_chunked: bool = False  # windows are cut off where a multiple of their size begins
    local_theta: float | None = None  # that base where a file says none; None: that of all others


ALL_LAYERS = WindowRule()


def windowed_layers(keys: ArchKeys, rule: WindowRule, n_layers: int) -> tuple[LayerAttention, ...]:
    """Returns the attention of the first n_layers layers; empty where no layer has a window. Raises
    ModelFileError."""
    if keys.raw(WINDOW) == 0 or (keys.raw(WINDOW) is None and not rule.default):
        return ()
    window = keys.integer(WINDOW, rule.default or None)
    return layers_of(rule, window, _pattern(keys, rule.every, n_layers))


def layers_of(rule: WindowRule, window: int, pattern: Iterable[bool]) -> tuple[LayerAttention, ...]:
    """Returns the attention of layers of which those of the pattern have the window."""
    local = LayerAttention(window, rule.is_chunked, has_local_rope=rule.has_local_rope)
    full = LayerAttention(is_rotated=rule.turns_full_layers)
    return tuple(local if has_window else full for has_window in pattern)


def pattern_of(n_layers: int, every: int) -> list[bool]:
    """Returns which layers have the window where of `every` layers the last one has none."""
    return [every == 0 or (i + 1) % every != 0 for i in range(n_layers)]


def _pattern(keys: ArchKeys, every: int, n_layers: int) -> Sequence[bool]:
    said = keys.listed(PATTERN)
    if said is None:
        return pattern_of(n_layers, every)
    if not isinstance(said, list):
        return pattern_of(n_layers, 0 if said == 0 else keys.integer(PATTERN))
    if len(said) != keys.integer("block_count"):  # which may count layers that are left out
        raise ModelFileError(
            f"{keys.path}: {PATTERN} has {len(said)} entries for {keys.integer('block_count')} "
            f"layers; expected one for each. The file is corrupt; convert the model again."
        )
    return [bool(has_window) for has_window in said[:n_layers]]
