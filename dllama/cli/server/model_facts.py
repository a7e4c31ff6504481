"""Everything about a model that the server's process holds: text, but no weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import prod
from pathlib import Path

from api.answers.reasoning import ReasoningFormat, tags_of
from api.engines.zmq_client import ZmqEngineClient
from api.served_model import ModelFacts, ServedModel
from api.tools.dialects import dialect_of
from dllama.chat import ChatTemplate, find_template, template_stop_ids
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.model_file import load_tokenizer, metadata_of, open_source
from dllama.cli.server.api_config import answer_defaults
from dllama.cli.server.model_sampling import model_sampling
from dllama.formats import CHECKPOINT, format_of
from dllama.formats.checkpoint.folder import checkpoint_folder, checkpoint_name
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.special_tokens import find_fim
from dllama.tokenizer.vocabulary import Kind
from dllama.weight_source import WeightSource

FORMAT_WORDS = {"GGUF": "gguf", CHECKPOINT: "safetensors", "distributed-llama .m": "m"}
"""A format as replies call it."""

VOCAB_TYPES = {Kind.SPM: 1, Kind.BPE: 2}  # llama.cpp's numbers


def find_facts(
    source: WeightSource,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    metadata: Mapping[str, object],
    *,
    path: str,
    file_metadata: GgufMetadata,
    n_ctx_train: int,
    n_slots: int,
    context_shift: bool,
    speculates: bool,
    saves_sessions: bool,
) -> ModelFacts:
    """Returns the facts about the model; the type of a file is that of most of its weights."""
    by_type: dict[str, int] = {}
    for info in source.tensors.values():
        by_type[info.qtype.name] = by_type.get(info.qtype.name, 0) + info.n_bytes
    return ModelFacts(
        path=path,
        format=FORMAT_WORDS[format_of(Path(path))],
        arch=source.config.arch,
        modified_s=Path(path).stat().st_mtime,
        metadata=file_metadata,
        file_type=max(by_type, key=by_type.__getitem__),
        vocab_type=VOCAB_TYPES[tokenizer.kind],
        n_ctx_train=n_ctx_train,
        n_embd=source.config.dim,
        n_params=sum(prod((info.rows, info.cols)) for info in source.tensors.values()),
        size_bytes=sum(by_type.values()),
        n_slots=n_slots,
        context_shift=context_shift,
        speculates=speculates,
        saves_sessions=saves_sessions,
        template_source=template.source,
        bos_text=tokenizer.bos_text,
        eos_text=tokenizer.eos_text,
        fim=find_fim(metadata, tokenizer.token_texts),
    )


def served_model(
    engine: EngineSettings, server: ServerSettings, client: ZmqEngineClient
) -> ServedModel:
    """Everything about the model that the server's process holds: text, but no weights.

    Raises ModelFileError, TokenizerError, TemplateError or ConfigError.
    """
    source = open_source(engine)
    own_metadata = metadata_of(engine.model, None)
    try:
        tokenizer = load_tokenizer(engine.model, server.tokenizer)
        metadata = metadata_of(engine.model, server.tokenizer) if server.tokenizer else own_metadata
        template = find_template(metadata, server.chat_template, tokenizer=tokenizer)
        file_name = engine.name or model_id(engine.model)
        stop_ids = frozenset(tokenizer.eog_ids) | template_stop_ids(template, tokenizer)
        return ServedModel(
            id=served_name(engine, server),
            file_name=file_name,
            tokenizer=tokenizer,
            chat_template=template,
            engine=client,
            max_seq_len=source.config.max_seq_len,
            created=int(time.time()),
            stop_ids=tuple(sorted(stop_ids)),
            aliases=server.aliases,
            tags=server.tags,
            template_kwargs=server.defaults.template_kwargs,
            reasoning=ReasoningFormat(server.defaults.reasoning_format),
            facts=find_facts(
                source,
                tokenizer,
                template,
                metadata,
                path=engine.model,
                file_metadata=own_metadata,
                n_ctx_train=source.trained_context,
                n_slots=engine.max_batch,
                context_shift=engine.context_shift,
                speculates=engine.speculate != 0,
                saves_sessions=engine.slot_save_path is not None,
            ),
            tool_dialect=dialect_of(template.sources),
            think_tags=tags_of(template.source),
            knows_effort="reasoning_effort" in template.source,
            defaults=answer_defaults(server.defaults, model_sampling(own_metadata)),
        )
    finally:
        source.close()


def served_name(engine: EngineSettings, server: ServerSettings) -> str:
    """Returns what replies call the model: the first alias, else its file's name."""
    return server.aliases[0] if server.aliases else engine.name or model_id(engine.model)


def model_id(path: str) -> str:
    """Returns the name of a model in requests: its file's name without the ending, or its
    folder's."""
    folder = checkpoint_folder(Path(path))
    if folder is not None:
        return checkpoint_name(folder)
    return Path(path).name.removesuffix(".gguf").removesuffix(".m")
