"""The sliding windows of a config.json, under the keys of GGUF's metadata.

Sources: the configuration classes of `transformers`: newer files name the kind of each layer, older
ones a pattern or the first layer with a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dllama.errors import ModelFileError
from dllama.models.windows import PATTERN, WINDOW

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
KINDS = (FULL, SLIDING, "attention")  # Granite's name for full attention
CHUNK = "attention_chunk_size"
_MOST = 2**31 - 1


def window_metadata(config: Mapping[str, object], path: Path) -> dict[str, object]:
    """Returns the keys, after the architecture; none where the file does not speak of windows.
    Raises ModelFileError."""
    key = CHUNK if CHUNK in config else "sliding_window"
    if key not in config:
        return {}
    window, kinds = config[key], config.get("layer_types")
    has_none = isinstance(kinds, list) and not {SLIDING, CHUNKED} & set(kinds)
    if window is None or has_none or not config.get("use_sliding_window", True):
        return {WINDOW: 0}
    if type(window) is not int or not 0 < window <= _MOST:
        raise ModelFileError(
            f"{path} says {key} is {str(window)[:80]!r}; expected a whole number from 1 to "
            f"{_MOST}. Download it again, or use another model."
        )
    return {WINDOW: window, **_pattern(config, kinds, path)}


def _pattern(config: Mapping[str, object], kinds: object, path: Path) -> dict[str, object]:
    """Returns which layers have the window, where the file says it."""
    if isinstance(kinds, list):
        return _of_layers([kind in (SLIDING, CHUNKED) for kind in kinds])
    n_layers, said = config.get("num_hidden_layers"), config.get("sliding_window_pattern")
    first = config.get("max_window_layers") if config.get("use_sliding_window") else None
    if type(n_layers) is not int or (said is None and first is None):
        return {}
    if type(said) is int:
        return {PATTERN: said}
    if isinstance(said, str) and said and set(said) <= set("LG"):  # local and global layers
        return _of_layers([said[i % len(said)] == "L" for i in range(n_layers)])
    if said is None and type(first) is int:
        return _of_layers([i >= first for i in range(n_layers)])
    raise ModelFileError(
        f"{path}: sliding_window_pattern is {str(said)[:80]!r} and max_window_layers "
        f"{str(first)[:80]!r}; expected whole numbers, or a text of L and G. Use another model."
    )


def _of_layers(has_window: Sequence[bool]) -> dict[str, object]:
    return {PATTERN: np.array(has_window, np.bool_)}
