"""Models of `transformers` and their logits. Needs PyTorch (the `train` extra).

`python -m tests.dllama.models.beside_transformers [NAMES]` writes the records anew."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from tests.dllama.models.our_logits import Shift
from tests.dllama.models.records import RECORDS, ROWS, SHIFT, TOKENS, write_folder
from tests.dllama.models.seeded_weights import shapes_of
from tests.dllama.models.transformers_cases import CASES, SIZES, STATEFUL


def save(folder: Path, model_type: str, config: dict[str, object]) -> None:
    """Saves a fresh model as they save it."""
    theirs = AutoConfig.for_model(model_type, **{**SIZES, **config})
    AutoModelForCausalLM.from_config(theirs).save_pretrained(folder)


def their_logits(folder: Path, tokens: Sequence[int], shift: Shift | None) -> np.ndarray:
    """Returns the logits (T, vocab_size) after each token, in float32. Those before `shift` are of
    one prompt; the others come one by one from keys that are turned back."""
    model, loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loaded.values()), loaded
    model = model.eval()
    ids = torch.tensor([list(tokens)])
    if shift is None:
        return _computed(model, ids)
    cache = DynamicCache()
    rows = [_computed(model, ids[:, : shift.at], cache=cache, use_cache=True)]
    for layer, kv in enumerate(cache.layers):
        _shift(model, layer, kv, shift)
    for n_held, at in enumerate(range(shift.at, len(tokens)), start=shift.at - shift.n_drop):
        rows.append(
            _computed(
                model, ids[:, at : at + 1], cache=cache, use_cache=True,
                position_ids=torch.tensor([[n_held]]),
            )
        )  # fmt: skip
    return np.concatenate(rows)


@torch.no_grad()
def _computed(model: Any, ids: torch.Tensor, **more: Any) -> np.ndarray:
    logits: np.ndarray = model(ids, **more).logits[0].numpy()
    return logits


def _shift(model: Any, layer: int, kv: Any, shift: Shift) -> None:
    """Drops tokens of a layer's cache, and turns those after them back by their number: of latents
    the part that they call values."""
    end = shift.n_keep + shift.n_drop
    parts = {}
    turned = "values" if model.config.model_type.startswith("deepseek") else "keys"
    for name in ("keys", "values"):
        part = getattr(kv, name)
        kept, moved = part[:, :, : shift.n_keep], part[:, :, end:]
        if name == turned:
            moved = _turned_back(model, layer, moved, shift.n_drop)
        parts[name] = torch.cat([kept, moved], dim=2)
    kv.keys, kv.values = parts["keys"], parts["values"]


@torch.no_grad()
def _turned_back(model: Any, layer: int, keys: torch.Tensor, by: int) -> torch.Tensor:
    """Their own rotation, the other way: what is scaled with it stays as it is."""
    attention, config = model.model.layers[layer].self_attn, model.config
    rotary, code = model.model.rotary_emb, sys.modules[type(model).__module__]
    place = torch.tensor([[by]])
    match config.model_type:
        case "smollm3" | "llama4_text" if not attention.use_rope:
            return keys
        case "exaone4" if config.sliding_window and not attention.is_sliding:
            return keys
        case "cohere2" if attention.sliding_window is None:
            return keys
        case "llama4_text":
            frequencies, rows = rotary(keys, place), keys.transpose(1, 2)
            found = code.apply_rotary_emb(rows, rows, frequencies.conj())
            return cast(torch.Tensor, found[1].transpose(1, 2))
        case "deepseek_v2":
            frequencies = rotary(keys, place)
            frequencies = frequencies.conj() / frequencies.abs()
            return cast(torch.Tensor, code.apply_rotary_emb(keys, keys, frequencies)[1])
    of_kind = [config.layer_types[layer]] if hasattr(rotary, "layer_types") else []
    cosines, sines = rotary(keys, place, *of_kind)
    scale = (cosines**2 + sines**2).sqrt()
    found = code.apply_rotary_pos_emb(keys, keys, cosines / scale, -sines / scale)
    return cast(torch.Tensor, found[1])


def record(name: str) -> None:
    """Writes what is kept of a case."""
    case, kept = CASES[name], RECORDS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save(folder, case.model_type, case.config)
        (kept / "config.json").write_bytes((folder / "config.json").read_bytes())
        shapes = json.dumps(shapes_of(folder), indent=0)
        (kept / "tensors.json").write_text(shapes + "\n")
        write_folder(name, folder)
        shift = None if name in STATEFUL else SHIFT
        np.save(kept / "logits.npy", their_logits(folder, TOKENS, shift)[ROWS])


if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        record(name)
