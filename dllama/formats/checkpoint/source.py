"""A checkpoint in a folder as a WeightSource, with the metadata of a GGUF file of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats.checkpoint.config_keys import config_metadata
from dllama.formats.checkpoint.folder import (
    CONFIG,
    WeightFiles,
    checkpoint_folder,
    checkpoint_name,
)
from dllama.formats.checkpoint.generation_keys import generation_metadata
from dllama.formats.checkpoint.placing import Placing
from dllama.formats.checkpoint.rope_keys import longrope_tables
from dllama.formats.checkpoint.text_part import read_config, text_tensors
from dllama.formats.checkpoint.tokenizer_files import count_tokens
from dllama.formats.checkpoint.tokenizer_keys import tokenizer_metadata
from dllama.formats.gguf_config import Described, model_config, optional_fields
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.formats.kept_tensors import KeptTensors
from dllama.formats.mapped import MappedFile
from dllama.formats.mapped_source import MappedSource, Stored, checked_cut, cut_of
from dllama.formats.safetensors import read_safetensors
from dllama.formats.stored_views import by_stored_name
from dllama.models import FAMILIES
from dllama.models.tensors import Tensor
from dllama.rope import with_rope_factors

log = logging.getLogger(__name__)

HEAD = "lm_head.weight"
UNUSED = re.compile(r"^model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$")
"""Tensors that hold what every reader computes for itself."""
DIFFUSION = (
    "model.diffusion_model.", "first_stage_model.", "double_blocks.", "down_blocks.",
    "transformer_blocks.", "joint_blocks.",
)  # fmt: skip
"""How tensors of diffusion models begin, and those of no language model."""
LAYER = re.compile(r"^model\.layers\.(\d+)\.")
FURTHER = ("num_nextn_predict_layers", "num_mtp_layers")
"""Keys of the number of layers after the last one, which predict further tokens."""


class CheckpointSource(MappedSource):
    """The weights and the metadata of a checkpoint of a known family.

    Raises ModelFileError where a file is missing or damaged, or the model is none that this version
    computes (UnknownTensorType where only a tensor's type stands in the way).
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        folder = checkpoint_folder(path)
        if folder is None:
            raise ModelFileError(f"{path} is no folder of a model in safetensors files.")
        self.folder = folder
        refuse_pictures(path)
        self.config_json = read_config(folder)
        self.files = WeightFiles(folder, path)
        self.files.tensors = text_tensors(self.files.tensors)
        self._kept = KeptTensors(0)
        try:
            config = _model_config(self.files, self.config_json)
            stored = _stored(self.files, config, self.config_json)
            super().__init__(config, stored, self.files.files)
        except BaseException:
            self.files.close()
            raise

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        """Experts are put together once for all readers of their parts, until they are released."""
        info = self.tensors[name]
        if info.n_experts == 1:
            return super().read(name, rows, cols)
        whole = self._kept.get(name)
        if whole is None:
            whole = super().read(name)
            self._kept.put(name, whole)
        rows = checked_cut(rows, info.rows // info.n_experts, f"rows of {name}")
        cols = checked_cut(cols, info.cols, f"columns of {name}")
        return cut_of(whole, info, rows, cols)

    def release(self, name: str) -> None:
        self._kept.release(name)
        super().release(name)

    @cached_property
    def metadata(self) -> GgufMetadata:
        """The metadata under GGUF's keys, with those of the tokenizer where it can be used."""
        return checkpoint_metadata(self.folder)


def refuse_pictures(path: Path) -> None:
    """Raises ModelFileError for a file of a diffusion model, which mostly lies alone."""
    if path.suffix != ".safetensors" or (path.parent / CONFIG).exists():
        return
    file = MappedFile(path)
    try:
        names = read_safetensors(file)
    finally:
        file.close()
    found = next((name for name in names if name.startswith(DIFFUSION)), None)
    if found is not None:
        raise ModelFileError(
            f"{path} is a diffusion model, which makes pictures or films: it has the tensor "
            f"{found[:80]!r}. Use a language model, whose folder has a {CONFIG} too."
        )


def checkpoint_metadata(folder: Path) -> GgufMetadata:
    """Returns what a GGUF file would say of the checkpoint in a folder. A tokenizer that cannot be
    used is left out. Raises ModelFileError."""
    config = read_config(folder)
    keys = config_metadata(config, checkpoint_name(folder), folder / CONFIG)
    keys |= generation_metadata(folder)
    try:
        keys |= tokenizer_metadata(folder)
    except TokenizerError as error:
        log.info("%s", error)
    return GgufMetadata(as_stored(keys))


def as_stored(keys: Mapping[str, object]) -> dict[str, object]:
    """Returns metadata as a GGUF file gives it back: fractions are held in float32 there."""
    return {
        key: float(np.float32(value)) if isinstance(value, float) else value
        for key, value in keys.items()
    }


def their_name(name: str, tensor: Tensor) -> str:
    """Returns the checkpoint's name of one of our tensors: `layers.3.wq` is
    `model.layers.3.self_attn.q_proj.weight`."""
    prefix, _, rest = name.partition(".")
    layer = rest.partition(".")[0]
    return f"model.layers.{layer}.{tensor.hf}" if prefix == "layers" else tensor.hf


def renamed_tensor(tensor: Tensor, renamed: Mapping[str, str]) -> Tensor:
    """Returns a tensor under the name that a family's checkpoints of another type have for it
    (Family.hf_renamed)."""
    return replace(tensor, hf=renamed.get(tensor.hf, tensor.hf))


def _model_config(files: WeightFiles, said: Mapping[str, object]) -> ModelConfig:
    path = files.folder / CONFIG
    keys = config_metadata(said, checkpoint_name(files.folder), path)
    embed = files.tensors.get("model.embed_tokens.weight")
    if embed is None:
        raise ModelFileError(
            f"{files.folder} has no tensor 'model.embed_tokens.weight'; it holds "
            f"{len(files.tensors)} others, such as {min(files.tensors, default='none')!r}. It is "
            f"no language model that this version computes; families are {', '.join(FAMILIES)}."
        )
    is_tied = _is_tied(files, said)
    short, long = longrope_tables(said, path) or (None, None)
    config = model_config(
        Described(
            path,
            GgufMetadata(as_stored(keys)),
            n_tensors=len(files.tensors),
            vocab_size=embed.rows,
            has_head=not is_tied,
            optional=optional_fields(files.tensors, lambda tensor: tensor.hf),
            tokenizer_size=count_tokens(files.folder),
            rope_factors=short,
            long_rope_factors=long,
        )
    )
    return with_rope_factors(config)


def _is_tied(files: WeightFiles, said: Mapping[str, object]) -> bool:
    """Returns whether the embedding is the head too. Raises ModelFileError where there is none."""
    has_head = HEAD in files.tensors
    is_tied = said.get("tie_word_embeddings")
    if is_tied is False and not has_head:
        raise ModelFileError(
            f"{files.folder} has no tensor {HEAD!r}, and {CONFIG} says that the embedding does not "
            f"stand for it (tie_word_embeddings); download the whole folder of the model."
        )
    return not has_head if is_tied is None else bool(is_tied)


def _stored(files: WeightFiles, config: ModelConfig, said: Mapping[str, object]) -> list[Stored]:
    """Returns where each tensor of the model lies. Raises ModelFileError for tensors that nothing
    reads: without them the results would be wrong."""
    placing = Placing(files, said, config)
    family = FAMILIES[config.arch]
    renamed = family.hf_renamed.get(str(said["model_type"]), {})
    together = by_stored_name(
        config,
        lambda name, tensor: their_name(name, renamed_tensor(tensor, renamed)),
        lambda name, row: family.as_stored(row),
    )
    stored = [part for theirs, parts in together.items() for part in placing.find(theirs, parts)]
    left = {name for name in files.tensors if not UNUSED.match(name)} - placing.used
    left -= _further(files, config, said)
    if config.is_tied:
        left.discard(HEAD)
    if left:
        raise ModelFileError(
            f"{files.folder}: the tensor {min(left)!r} belongs to nothing that this version "
            f"computes, so its results would be wrong. Use another model; families are "
            f"{', '.join(FAMILIES)}."
        )
    return stored


def _further(files: WeightFiles, config: ModelConfig, said: Mapping[str, object]) -> set[str]:
    """Returns the tensors of layers after the last one, which predict further tokens."""
    n_further = next((n for key in FURTHER if isinstance(n := said.get(key), int)), 0)
    layers = range(config.n_layers, config.n_layers + n_further)
    matches = ((name, LAYER.match(name)) for name in files.tensors)
    return {name for name, layer in matches if layer is not None and int(layer[1]) in layers}
