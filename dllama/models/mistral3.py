"""Mistral Small 3.1 and 3.2, the part on text, as newer GGUF files have it, and Ministral 3: Llama,
whose queries may grow with their position (arXiv 2501.19399)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dllama.config import QueryGrowth
from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, WO
from dllama.models.family import Family
from dllama.models.llama4 import GROWTH_SCALE

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys


def _growth(keys: ArchKeys) -> Mapping[str, object]:
    scale = keys.number(GROWTH_SCALE, 0.0, may_be_zero=True)
    if not scale:
        return {}
    length = keys.integer("rope.scaling.original_context_length")
    return {"query_growth": QueryGrowth(scale, length, first=0, is_everywhere=True)}


MISTRAL3 = Family(
    arch="mistral3",
    title="Mistral Small 3.1 and 3.2 (text), Ministral 3",
    hf_types=("ministral3",),
    layer=(NORM1, *QKV, WO, NORM2, *FEED_FORWARD),
    is_interleaved=True,
    optional=(),
    config_of=_growth,
    keys=frozenset({GROWTH_SCALE}),
)
