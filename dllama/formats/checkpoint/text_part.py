"""The text part of checkpoints that see pictures too, as if it stood alone: its part of the
config.json, and its tensors by the names that they have in models of text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dllama.formats.checkpoint.folder import CONFIG, read_json
from dllama.formats.safetensors import StoredTensor
from dllama.models import unknown_family
from dllama.models.unsupported import REFUSED_WHOLE

TEXT = "text_config"
_OF_TEXT = {
    "model.language_model.": "model.", "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
}  # fmt: skip
_OTHERS = re.compile(r"^((model\.)?(visual|vision_model|vision_tower|multi_modal_projector)|mtp)\.")
"""What sees pictures, and what guesses tokens further ahead: neither is computed."""

_WHOLE = ("tie_word_embeddings", "quantization_config")
"""Keys that such files have beside the part on text."""


def read_config(folder: Path) -> dict[str, object]:
    """Returns what a folder's config.json says of text. Raises ModelFileError."""
    said = read_json(folder / CONFIG)
    text, kind = said.get(TEXT), said.get("model_type")
    if not isinstance(text, dict):
        return said
    if kind in REFUSED_WHOLE:
        raise unknown_family(folder / CONFIG, f"is of the model_type {kind!r}", kind)
    return {**{key: said[key] for key in _WHOLE if key in said}, **text}


def text_tensors(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Returns the tensors of text by the names that they have in models of text."""
    found = {}
    for name, tensor in tensors.items():
        if not _OTHERS.match(name):
            part = next((part for part in _OF_TEXT if name.startswith(part)), "")
            found[_OF_TEXT.get(part, "") + name.removeprefix(part)] = tensor
    return found
