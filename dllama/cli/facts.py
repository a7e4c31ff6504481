"""What /v1/models and /props tell of a model: found in its file, once, at the start."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from api.served_model import ModelFacts
from dllama.chat import ChatTemplate
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.fim_tokens import find_fim
from dllama.tokenizer.vocabulary import Kind
from dllama.weight_source import WeightSource

VOCAB_TYPES = {Kind.SPM: 1, Kind.BPE: 2}  # llama.cpp's numbers


def find_facts(
    source: WeightSource,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    metadata: Mapping[str, object],
    *,
    path: str,
    n_ctx_train: int,
    n_slots: int,
    context_shift: bool,
    speculates: bool,
    saves_sessions: bool,
) -> ModelFacts:
    """The type of a file is that of most of its weights."""
    by_type: dict[str, int] = {}
    for info in source.tensors.values():
        by_type[info.qtype.name] = by_type.get(info.qtype.name, 0) + info.n_bytes
    return ModelFacts(
        path=path,
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
