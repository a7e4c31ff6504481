"""Models as /v1/models and its like list them, and a router's own figures."""

from __future__ import annotations

from collections.abc import Sequence

from api.config import ApiConfig
from api.models.entry import ModelEntry
from api.models.pool import ModelPool
from api.replies.event_stream import Json
from api.served_model import ServedModel


def describe(model: ServedModel) -> dict[str, object]:
    """Returns a model as /v1/models lists it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "dllama",
        "aliases": list(model.aliases),
        "tags": list(model.tags),
        "meta": meta_of(model),
    }


def meta_of(model: ServedModel) -> dict[str, object]:
    """Returns llama-server's `meta` of a model."""
    facts = model.facts
    return {
        "vocab_type": facts.vocab_type,
        "n_vocab": model.tokenizer.vocab_size,
        "n_ctx": model.max_seq_len,
        "n_ctx_train": facts.n_ctx_train,
        "n_embd": facts.n_embd,
        "n_params": facts.n_params,
        "size": facts.size_bytes,
        "ftype": facts.file_type,
    }


def ollama_like(model: ServedModel) -> Json:
    """Returns a model as Ollama's clients read it, who look for it under `models`."""
    return _ollama_row(model.id, model.tags, model.facts.file_type)


def _ollama_row(name: str, tags: Sequence[str], file_type: str) -> Json:
    details = {
        "parent_model": "", "format": "gguf", "family": "", "families": [""],
        "parameter_size": "", "quantization_level": file_type,
    }  # fmt: skip
    return {
        "name": name, "model": name, "modified_at": "", "size": "", "digest": "",
        "type": "model", "description": "", "tags": list(tags),
        "capabilities": ["completion"],
        "parameters": "", "details": details,
    }  # fmt: skip


def pool_rows(pool: ModelPool) -> Json:
    """Returns the list of a router's models, as llama-server's router has it."""
    return {
        "models": [ollama_entry(entry) for entry in pool.entries() if entry.is_downloaded],
        "object": "list",
        "data": [pool_row(pool, entry) for entry in pool.entries()],
    }


def pool_row(pool: ModelPool, entry: ModelEntry) -> Json:
    """Returns a model of a router with its status; `meta` is known once it was loaded or shown."""
    text = pool.text_of(entry)
    known: Json = {} if text is None else {"meta": meta_of(text)}
    preset: Json = {"preset": entry.preset} if entry.preset else {}
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.modified_s),
        "owned_by": "dllama",
        "aliases": list(entry.aliases),
        "tags": list(entry.tags),
        "status": {**pool.status(entry).row(), "args": list(entry.args), **preset},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "source": entry.source,
        "path": entry.path,
        "size": entry.size_bytes,
        "pinned": entry.is_pinned,
        "can_remove": entry.can_remove,
        **known,
    }


def ollama_entry(entry: ModelEntry) -> Json:
    """Returns a model of a router as Ollama's clients read it."""
    return _ollama_row(entry.name, entry.tags, "")


def pool_stats(pool: ModelPool) -> Json:
    """Returns what a router's models take of what they may take."""
    rows: list[Json] = [
        {"id": entry.name, "state": pool.status(entry).value, **pool.usage(entry)}
        for entry in pool.entries()
    ]
    return {
        "models": rows,
        "n_waiting": pool.n_waiting,
        "max_models": pool.limits.max_models,
        "memory_bytes": pool.limits.memory_bytes,
    }


def router_props(pool: ModelPool, config: ApiConfig) -> Json:
    """Returns the properties of a router as llama-server has them."""
    return {
        "role": "router",
        "max_instances": pool.limits.max_models,
        "models_autoload": pool.autoloads,
        "model_alias": "dllama",
        "model_path": "none",
        "default_generation_settings": {"params": {}, "n_ctx": 0},
        "ui": config.has_page,
        "ui_settings": {},
        "build_info": config.fingerprint,
        "cors_proxy_enabled": False,
    }
