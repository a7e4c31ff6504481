"""Models as Ollama's clients know them: names with a tag, digests, details, capabilities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from math import inf
from pathlib import Path

import numpy as np
import orjson

from api.models.entry import ModelEntry
from api.replies.event_stream import Json
from api.served_model import ServedModel
from api.tools.dialects import GENERIC
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.hub.names import HUB_HOSTS

LATEST = ":latest"  # the tag of a name without one
HUB = f"{HUB_HOSTS[0]}/"
FOREVER_S = timedelta(days=36_500).total_seconds()  # as long as the server runs


def tagged(model: ServedModel | ModelEntry) -> str:
    """Returns the model's name with a tag; of one that was downloaded the name that Ollama has for
    models of the hub."""
    of_hub = (name for name in model.names if name.startswith(HUB))
    name = next(of_hub, model.names[0])
    return name if ":" in name else name + LATEST


def digest_of(model: ServedModel) -> str:
    """Returns 64 hexadecimal digits that are the same for the same model: of its file's name, sizes
    and description, since to hash the weights would take minutes."""
    facts = model.facts
    known = [model.id, Path(facts.path).name, facts.size_bytes, facts.n_params, facts.file_type,
             model.tokenizer.vocab_size, facts.template_source]  # fmt: skip
    return sha256(orjson.dumps(known)).hexdigest()


def time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def shown_count(n: int) -> str:
    """Returns a number of parameters as Ollama writes it: 7.6B, 494.03M, 260K."""
    for size, unit, digits in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if n >= size:
            return f"{n / size:.{0 if n % size == 0 else digits}f}{unit}"
    return str(n)


def details_of(model: ServedModel) -> Json:
    facts = model.facts
    return {
        "parent_model": "",
        "format": facts.format,
        "family": facts.arch,
        "families": [facts.arch],
        "parameter_size": shown_count(facts.n_params),
        "quantization_level": facts.file_type,
    }


def listed(model: ServedModel) -> Json:
    """Returns a model as /api/tags lists it."""
    return {
        "name": tagged(model),
        "model": tagged(model),
        "modified_at": time_of(model.facts.modified_s or model.created),
        "size": model.facts.size_bytes,
        "digest": digest_of(model),
        "details": details_of(model),
    }


def listed_entry(entry: ModelEntry) -> Json:
    """Returns a model of a router as /api/tags lists it, as long as its file was not read."""
    name = tagged(entry)
    known = [entry.name, Path(entry.path).name, entry.size_bytes]
    details = {"parent_model": "", "format": "", "family": "", "families": [],
               "parameter_size": "", "quantization_level": ""}  # fmt: skip
    return {
        "name": name,
        "model": name,
        "modified_at": time_of(entry.modified_s),
        "size": entry.size_bytes,
        "digest": sha256(orjson.dumps(known)).hexdigest(),
        "details": details,
    }


def running(model: ServedModel, expires_in_s: float = inf) -> Json:
    """Returns a loaded model as /api/ps lists it. No part of it is in a graphics card."""
    told = listed(model)
    del told["modified_at"]
    expires_at = datetime.now(UTC) + timedelta(seconds=min(expires_in_s, FOREVER_S))
    return {
        **told,
        "expires_at": time_of(expires_at.timestamp()),
        "size_vram": 0,
        "context_length": model.max_seq_len,
    }


def capabilities_of(model: ServedModel) -> list[str]:
    """Returns what the model was made for, by its chat template, vocabulary and metadata."""
    facts = model.facts
    known = {
        "completion": True,
        "tools": model.tool_dialect is not GENERIC,
        "thinking": model.think_tags is not None,
        "insert": facts.fim is not None,
        "embedding": f"{facts.arch}.pooling_type" in facts.metadata,
    }
    return [name for name, is_known in known.items() if is_known]


def described(model: ServedModel, *, is_verbose: bool) -> Json:
    """Returns a model as /api/show tells it. Its template is Jinja's, as the model's maker wrote
    it; arrays of the metadata are null unless the answer `is_verbose`."""
    facts = model.facts
    source = Path(facts.path).name
    stops = [model.tokenizer.token_bytes(i).decode(errors="replace") for i in model.stop_ids]
    parameters = [f"stop {orjson.dumps(text).decode()}" for text in stops]
    licence = facts.metadata.get("general.license")
    return {
        "license": licence if isinstance(licence, str) else "",
        "modelfile": "\n".join([f"FROM {source}", *(f"PARAMETER {p}" for p in parameters)]),
        "parameters": "\n".join(parameters),
        "template": facts.template_source,
        "details": details_of(model),
        "model_info": model_info(model, is_verbose=is_verbose),
        "capabilities": capabilities_of(model),
        "modified_at": time_of(facts.modified_s or model.created),
    }


def model_info(model: ServedModel, *, is_verbose: bool) -> Json:
    """Returns the metadata of the model's file under its keys, and its number of parameters."""
    facts = model.facts
    own: Json = {
        "general.architecture": facts.arch,
        "general.parameter_count": facts.n_params,
        f"{facts.arch}.context_length": facts.n_ctx_train,
        f"{facts.arch}.embedding_length": facts.n_embd,
    }
    return own | {key: _shown(facts.metadata, key, is_verbose) for key in facts.metadata}


def _shown(metadata: GgufMetadata, key: str, is_verbose: bool) -> object:
    if not is_verbose and metadata.array_length(key) is not None:
        return None
    value = metadata[key]
    return value.tolist() if isinstance(value, np.ndarray) else value
