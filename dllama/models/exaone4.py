"""EXAONE 4.0 (arXiv 2507.11407): Llama with norms of what half layers add, instead of norms before
them, and with a norm of each query and key head. Computed where all layers are of one kind, as in
the 1.2B; larger models mix sliding windows with layers without positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dllama.errors import ModelFileError
from dllama.models.blocks import FEED_FORWARD, POST_NORM1, POST_NORM2, QK_NORM, QKV, WO
from dllama.models.family import Family

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys


def refuse_mixed_layers(keys: ArchKeys) -> Mapping[str, object]:
    """Adds no fields. Raises ModelFileError for models that mix kinds of attention."""
    if keys.raw("attention.sliding_window") not in (None, 0):
        raise ModelFileError(
            f"{keys.path}: layers of this EXAONE model differ in their attention "
            "(exaone4.attention.sliding_window), which this version does not compute. Use the 1.2B "
            "model or another one."
        )
    return {}


EXAONE4 = Family(
    arch="exaone4",
    title="EXAONE 4.0 1.2B",
    hf_types=("exaone4",),
    layer=(*QKV, *QK_NORM, WO, POST_NORM1, *FEED_FORWARD, POST_NORM2),
    always={"has_qk_norm": True},
    config_of=refuse_mixed_layers,
)
