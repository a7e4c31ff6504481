"""Folders as Hugging Face has them, with the same weights as the GGUF file of the same toy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.writers.filler_vocabulary import CHATML, bpe_metadata, spm_metadata
from dllama.config import Gating, ModelConfig, RopeScaling, RopeScalingKind
from dllama.formats.checkpoint.source import renamed_tensor, their_name
from dllama.formats.gguf_config import SCALES
from dllama.formats.rope_order import RotaryPairs, interleaved_order
from dllama.formats.stored_views import by_stored_name
from dllama.formats.writing.encode import encode
from dllama.models import FAMILIES, model_tensors
from dllama.models.changes import plus_one
from dllama.models.delta_orders import minus_exp
from dllama.models.latent import log_multiplier
from dllama.models.tensors import Tensor
from dllama.qtypes import QType
from tests.toy_models import toy_tensor

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
UNDONE = {plus_one: lambda values: values - 1, minus_exp: lambda values: np.log(-values)}
"""What makes a checkpoint's numbers of those that are computed with."""
DTYPES = {QType.F32: "F32", QType.F16: "F16", QType.BF16: "BF16"}
Entry = tuple[str, tuple[int, ...], bytes]
"""The dtype, the shape and the bytes of a tensor."""


PREPENDING = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
"""SentencePiece's rule for spaces, as tokenizer.json writes it."""


def write_safetensors(
    path: Path, tensors: Mapping[str, Entry], metadata: Mapping[str, str] | None = None
) -> Path:
    """Writes the tensors one after another, beginning at an odd byte: the format asks for no
    alignment."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 8)
    data = b"".join(raw for _, _, raw in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_checkpoint(
    folder: Path,
    *,
    arch: str = "llama",
    model_type: str | None = None,
    qtype: QType = QType.F32,
    n_files: int = 1,
    dim: int = 64,
    hidden_dim: int = 160,
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    vocab_size: int = 352,
    max_seq_len: int = 256,
    seed: int = 0,
    tied: bool = False,
    rope_scaling: RopeScaling | None = None,
    fields: Mapping[str, object] | None = None,
    tokenizer: str = "bpe",
    change: Callable[[dict[str, Entry]], None] = lambda tensors: None,
    **more: object,
) -> Path:
    """Writes the toy that `write_toy` writes for the same arguments, in `n_files` files, with
    `more` in its config.json; `fields` are further ones of its config, `change` may alter its
    tensors. Returns the folder."""
    heads = {"n_kv_heads": n_kv_heads, "head_dim": head_dim or dim // n_heads}
    config = ModelConfig(
        arch=arch, name=folder.name, dim=dim, hidden_dim=hidden_dim, n_layers=n_layers,
        n_heads=n_heads, vocab_size=vocab_size, max_seq_len=max_seq_len,
        norm_epsilon=1e-6 if arch == "qwen3" else 1e-5, rope_theta=10000.0, is_tied=tied,
        **{**FAMILIES[arch].always, **heads, "rope_scaling": rope_scaling, **(fields or {})},
    )  # fmt: skip
    model_type = model_type or FAMILIES[arch].hf_types[0]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint_tensors(config, qtype, seed, model_type)
    change(tensors)
    write_weights(folder, tensors, n_files)
    said = {"model_type": model_type, **config_json(config), **more}
    (folder / "config.json").write_text(json.dumps(said))
    if tokenizer == "bpe":
        write_bpe_tokenizer(folder, vocab_size)
    elif tokenizer == "spm":
        write_spm_tokenizer(folder, vocab_size)
    return folder


def write_weights(folder: Path, tensors: Mapping[str, Entry], n_files: int) -> None:
    """Writes `n_files` safetensors files, and the index where there are several."""
    if n_files == 1:
        write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
        return
    names = [f"model-{i:05}-of-{n_files:05}.safetensors" for i in range(1, n_files + 1)]
    of_file = {name: names[i % n_files] for i, name in enumerate(tensors)}
    for file_name in names:
        own = {name: entry for name, entry in tensors.items() if of_file[name] == file_name}
        write_safetensors(folder / file_name, own)
    index = {"metadata": {"total_size": 1}, "weight_map": of_file}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def checkpoint_tensors(
    config: ModelConfig, qtype: QType, seed: int, model_type: str
) -> dict[str, Entry]:
    """The toy's tensors by the checkpoint's names; those of experts one by one, or in one where the
    family's names say so. Vectors are of the same type as matrices."""
    family = FAMILIES[config.arch]
    renamed = family.hf_renamed.get(model_type, {})
    together = by_stored_name(
        config,
        lambda name, tensor: their_name(name, renamed_tensor(tensor, renamed)),
        lambda name, row: family.as_stored(row),
    )
    found: dict[str, Entry] = {}
    joint: dict[str, list[np.ndarray]] = {}  # of all experts, with the outputs last
    for theirs, parts in together.items():
        first = parts[0][1]
        n_experts, is_vector = first.n_experts(config), first.is_vector
        rows = [_stored_rows(config, name, tensor, seed) for name, tensor in parts]
        if first.experts is not None and "{e}" not in theirs and not theirs.endswith(".weight"):
            outputs_last = rows[0].reshape(n_experts, -1, rows[0].shape[-1]).transpose(0, 2, 1)
            whole = rows[0] if is_vector else outputs_last
            joint.setdefault(re.sub(r"\[\d", "[", theirs), []).append(whole)
            continue
        each = [
            np.concatenate(of) for of in zip(*(np.split(r, n_experts) for r in rows), strict=True)
        ]
        if "{e}" not in theirs:
            each = [_as_stored(config, theirs, np.concatenate(each))]
        for e, part in enumerate(each):
            shape = part.shape[1:] if is_vector else part.shape
            if first.is_table:  # channels, and one input of each
                shape = (shape[0], 1, shape[1])
            if n_experts > len(each):
                shape = (n_experts, shape[0] // n_experts, shape[1])
            entry = (DTYPES[qtype], tuple(shape), encode(part, qtype).tobytes())
            found[theirs.replace("{e}", str(e))] = entry
    for theirs, parts in joint.items():
        by_turns = np.stack(parts, axis=-1).reshape(*parts[0].shape[:-1], -1)
        whole = by_turns if "/" not in theirs else np.concatenate(parts, axis=-1)
        raw = encode(whole.reshape(len(whole), -1), qtype).tobytes()
        found[theirs.partition("[")[0]] = (DTYPES[qtype], whole.shape, raw)
    return found


def _as_stored(config: ModelConfig, theirs: str, values: np.ndarray) -> np.ndarray:
    """The values of a stored tensor, as checkpoints of its family have them."""
    family, name = FAMILIES[config.arch], re.sub(r"^model\.layers\.\d+\.", "", theirs)
    if (order := family.hf_orders.get(name)) is not None:
        values = np.take(values, np.argsort(order.places(config)), int(order.is_of_cols))
    change = family.hf_changes.get(name)
    return values if change is None else UNDONE[change](values)


def _stored_rows(config: ModelConfig, name: str, tensor: Tensor, seed: int) -> np.ndarray:
    """The values of a toy's tensor, rotary pairs and matrices as checkpoints of its family have
    them."""
    values = toy_tensor(config, name, seed)
    table = model_tensors(config)[name]
    if tensor.rows is not table.rows:
        each = values.reshape(-1, tensor.cols.size(config), table.cols.size(config))
        return each.transpose(0, 2, 1).reshape(-1, tensor.cols.size(config))
    if not tensor.has_pairs or not FAMILIES[config.arch].is_hf_interleaved:
        return values
    axis, pairs = int(len(values) == 1), RotaryPairs(config.head_dim, config.rotary_dim)
    return np.take(values, interleaved_order(values.shape[axis], pairs), axis)


def config_json(config: ModelConfig) -> dict[str, object]:
    """The config.json of a model, without its type."""
    said: dict[str, object] = {
        "hidden_size": config.dim, "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers, "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads, "head_dim": config.head_dim,
        "vocab_size": config.vocab_size, "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_epsilon, "layer_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.is_tied, "hidden_act": "silu",
    }  # fmt: skip
    windows = {kind.window for kind in config.attention_layers if kind.window}
    if windows:
        said["sliding_window"] = max(windows)
    if (latent := config.latent) is not None:
        said |= {
            "kv_lora_rank": latent.kv_rank, "q_lora_rank": latent.q_rank or None,
            "qk_rope_head_dim": latent.rope_dim, "qk_nope_head_dim": latent.nope_dim,
            "v_head_dim": latent.value_dim, "head_dim": latent.rope_dim,
        }  # fmt: skip
    if config.arch == "llama4":
        said |= llama4_json(config)
    elif config.n_experts and (config.gating is Gating.SIGMOID or config.latent):
        said |= {
            "intermediate_size": config.dense_hidden_dim, "n_routed_experts": config.n_experts,
            "num_experts_per_tok": config.n_active_experts,
            "moe_intermediate_size": config.hidden_dim, "norm_topk_prob": config.has_expert_norm,
            "n_shared_experts": config.shared_ratio, "routed_scaling_factor": config.expert_scale,
            "n_group": config.n_expert_groups, "topk_group": config.n_active_groups,
            "first_k_dense_replace": config.n_dense_layers,
            "partial_rotary_factor": config.rotary_dim / config.head_dim,
            "use_qk_norm": config.has_qk_norm,
        }  # fmt: skip
    elif config.n_experts:
        # transformers 5 writes both names for some families, and the second alone for some
        n_experts = "num_experts" if config.arch == "qwen2moe" else "num_local_experts"
        said |= {
            n_experts: config.n_experts, "num_experts_per_tok": config.n_active_experts,
            "moe_intermediate_size": config.hidden_dim, "norm_topk_prob": config.has_expert_norm,
            "shared_expert_intermediate_size": config.shared_hidden_dim,
            "shared_intermediate_size": config.shared_hidden_dim,
        }  # fmt: skip
    if (sizes := config.delta) is not None:
        said |= {
            "linear_num_key_heads": sizes.n_key_heads, "linear_key_head_dim": sizes.key_dim,
            "linear_num_value_heads": sizes.n_value_heads, "linear_value_head_dim": sizes.value_dim,
            "linear_conv_kernel_dim": sizes.conv_len,
            "layer_types": [
                "linear_attention" if config.is_delta(i) else "full_attention"
                for i in range(config.n_layers)
            ],
        }  # fmt: skip
    scaling = config.rope_scaling
    if scaling is not None:
        rope: dict[str, object] = {
            "rope_type": scaling.kind.value, "factor": scaling.factor,
            "original_max_position_embeddings": scaling.original_max_seq_len,
        }  # fmt: skip
        if scaling.kind is RopeScalingKind.LLAMA3:
            rope |= {"low_freq_factor": scaling.low_freq_factor,
                     "high_freq_factor": scaling.high_freq_factor}  # fmt: skip
        if scaling.kind is RopeScalingKind.YARN:
            rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow,
                     "attention_factor": scaling.attention_factor}  # fmt: skip
            if multiplier := log_multiplier(config):
                del rope["attention_factor"]
                rope |= {"mscale": 10 * multiplier, "mscale_all_dim": 10 * multiplier}
            if config.query_growth is not None:  # Ministral 3's
                rope["llama_4_scaling_beta"] = config.query_growth.scale
            if not scaling.is_rounded:
                rope["truncate"] = False
        if scaling.kind is RopeScalingKind.LONGROPE:
            del rope["factor"]
            rope |= {"short_factor": config.rope_factors, "long_factor": config.long_rope_factors,
                     "attention_factor": scaling.attention_factor}  # fmt: skip
        said["rope_scaling"] = rope
    family = FAMILIES[config.arch]
    for key, theirs in family.hf_keys.items():
        scale = getattr(config, SCALES[theirs]) if theirs in SCALES else None
        if scale is not None:
            divides = family.divides_logits and theirs == "logit_scale"
            said[key] = 1 / scale if divides else scale
    if config.latent is not None:
        said.pop("partial_rotary_factor", None)
    elif config.partial_rotary_dim is not None:
        said["partial_rotary_factor"] = config.partial_rotary_dim / config.head_dim
    return said


def llama4_json(config: ModelConfig) -> dict[str, object]:
    growth = config.query_growth
    assert growth is not None
    return {
        "intermediate_size": config.hidden_dim, "intermediate_size_mlp": config.dense_hidden_dim,
        "num_local_experts": config.n_experts, "num_experts_per_tok": config.n_active_experts,
        "interleave_moe_layer_step": config.mixture_interval, "no_rope_layers": [],
        "use_qk_norm": config.has_plain_qk_norm, "attn_temperature_tuning": 4,
        "attn_scale": growth.scale, "floor_scale": growth.length,
        "attention_chunk_size": config.attention_of(0).window,
    }  # fmt: skip


# ---- tokenizers


def write_bpe_tokenizer(folder: Path, vocab_size: int) -> None:
    """The filler vocabulary of toys, byte-level BPE, as a tokenizer.json."""
    metadata = bpe_metadata(vocab_size)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(types, np.ndarray)
    special = [i for i in range(vocab_size) if types[i] == 3]
    begin = tokens.index("<|begin_of_text|>")
    write_tokenizer(
        folder,
        {
            "added_tokens": [added(i, tokens[i]) for i in special],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated",
                     "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                     "use_regex": False},
                ],
            },
            "post_processor": template(tokens[begin], begin),
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {
                "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                "byte_fallback": False, "ignore_merges": True,
                "vocab": {text: i for i, text in enumerate(tokens) if i not in special},
                "merges": merges,
            },
        },
        bos_token="<|begin_of_text|>", eos_token="<|im_end|>", chat_template=CHATML,
    )  # fmt: skip


def write_spm_tokenizer(
    folder: Path, vocab_size: int, pre_tokenizer: Mapping[str, object] | None = None
) -> None:
    """The filler vocabulary of toys, SentencePiece's, as a tokenizer.json; `pre_tokenizer` writes
    spaces in place of the normalizers that do."""
    metadata = spm_metadata(vocab_size)
    tokens = metadata["tokenizer.ggml.tokens"]
    types, scores = metadata["tokenizer.ggml.token_type"], metadata["tokenizer.ggml.scores"]
    assert isinstance(tokens, list) and isinstance(types, np.ndarray)
    assert isinstance(scores, np.ndarray)
    special = [i for i in range(vocab_size) if types[i] in (2, 3)]
    write_tokenizer(
        folder,
        {
            "added_tokens": [added(i, tokens[i]) for i in special],
            "normalizer": None if pre_tokenizer else PREPENDING,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": template("<s>", 1),
            "decoder": None,
            "model": {
                "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                "byte_fallback": True, "ignore_merges": False,
                "vocab": {text: i for i, text in enumerate(tokens)},
                "merges": pairs_by_score(tokens, scores.tolist()),
            },
        },
        bos_token={"content": "<s>"}, eos_token="<|im_end|>", chat_template=CHATML,
    )  # fmt: skip


def pairs_by_score(tokens: list[str], scores: list[float]) -> list[list[str]]:
    """All pairs of tokens that make a token, those of the highest score first: what `transformers`
    makes of a SentencePiece model."""
    ids = {text: i for i, text in enumerate(tokens)}
    pairs = []
    for text in sorted(tokens, key=lambda text: -scores[ids[text]]):
        splits = ((text[:at], text[at:]) for at in range(1, len(text)))
        known = [pair for pair in splits if pair[0] in ids and pair[1] in ids]
        pairs += sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    return [list(pair) for pair in pairs]


def write_tokenizer(folder: Path, parts: Mapping[str, object], **config: object) -> None:
    whole = {"version": "1.0", "truncation": None, "padding": None, **parts}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def added(i: int, text: str, *, special: bool = True) -> dict[str, object]:
    return {
        "id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
        "normalized": not special, "special": special,
    }  # fmt: skip


def template(text: str, i: int) -> dict[str, object]:
    """The post-processor that puts a token before a text."""
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    token = {"SpecialToken": {"id": text, "type_id": 0}}
    return {
        "type": "TemplateProcessing", "single": [token, sequence], "pair": [token, sequence],
        "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]}},
    }  # fmt: skip
