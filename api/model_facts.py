"""What there is to say of a model besides serving it: for /v1/models, /props and /infill."""

from __future__ import annotations

from dataclasses import dataclass

from dllama.tokenizer.fim_tokens import FimTokens


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Of its file and its vocabulary; zero or empty where nobody knows. `n_slots` sequences run at
    once; `size_bytes` are those of its weights."""

    path: str = ""
    file_type: str = ""
    vocab_type: int = 0  # llama.cpp's number: 1 SentencePiece, 2 byte-level BPE
    n_ctx_train: int = 0
    n_embd: int = 0
    n_params: int = 0
    size_bytes: int = 0
    n_slots: int = 1
    saves_sessions: bool = False  # there is a directory for them
    speculates: bool = False  # guesses at the next tokens, and checks them
    context_shift: bool = False  # conversations that outgrow the context go on
    template_source: str = ""
    bos_text: str = ""
    eos_text: str = ""
    fim: FimTokens | None = None
