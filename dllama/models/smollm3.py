"""SmolLM3: Llama whose every fourth layer has no positions (arXiv 2501.18795)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dllama.config import LayerAttention
from dllama.errors import ModelFileError
from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, QKV_BIAS, WO
from dllama.models.family import Family

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

EVERY = 4  # of so many layers the last one has no positions
ROTATED = "rope.layers"  # of a folder: 1 for each layer with positions, 0 for one without


def rotated_layers(keys: ArchKeys) -> Mapping[str, object]:
    """Returns the layers with and without positions (Family.config_of). Raises ModelFileError for
    another pattern, which GGUF files cannot say."""
    wanted = [int((i + 1) % EVERY != 0) for i in range(keys.integer("block_count"))]
    said = keys.listed(ROTATED)
    if said is not None and said != wanted:
        raise ModelFileError(
            f"{keys.path}: no_rope_layers is {str(said)[:80]}; this version computes models of "
            f"which every {EVERY}th layer, and no other, has no positions. Use another model."
        )
    return {"attention_layers": tuple(LayerAttention(is_rotated=bool(on)) for on in wanted)}


SMOLLM3 = Family(
    arch="smollm3",
    title="SmolLM3",
    hf_types=("smollm3",),
    hf_defaults={"rope_theta": 2e6},
    hf_keys={"no_rope_layers": ROTATED},
    layer=(NORM1, *QKV, *QKV_BIAS, WO, NORM2, *FEED_FORWARD),
    is_interleaved=True,
    config_of=rotated_layers,
)
