"""A model that a server answers for, with all that turns text into tokens and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api.answers.reasoning import ReasoningFormat, ThinkTags
from api.config import AnswerDefaults
from api.engines.client import EngineClient
from api.tools.dialects import GENERIC, ToolDialect
from dllama.chat.continuation import Cut
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.tokenizer.special_tokens import FimTokens


class TextDecoder(Protocol):
    """Turns ids into text as they come, never half a character."""

    def push(self, ids: Sequence[int], /) -> str: ...

    def flush(self) -> str: ...


class TextCodec(Protocol):
    """The part of a dllama.tokenizer.Tokenizer that the server uses, from several threads at
    once."""

    @property
    def vocab_size(self) -> int: ...

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]: ...

    def encode_prompt(self, text: str, /) -> list[int]: ...

    def decode(self, ids: Sequence[int], /, *, is_continuation: bool = False) -> str: ...

    def decoder(self, skip_special: bool = True, *, kept: Collection[int] = ()) -> TextDecoder: ...

    def token_bytes(self, token: int, /) -> bytes: ...

    def is_special(self, token: int, /) -> bool: ...


class PromptTemplate(Protocol):
    """The part of a dllama.chat.ChatTemplate that the server uses. Raises TemplateError."""

    @property
    def writes_calls(self) -> bool: ...

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: object,
    ) -> str: ...

    def render_up_to(
        self,
        cut: Cut,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]] | None = None,
        /,
        **kwargs: object,
    ) -> str | None: ...


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a model's file and vocabulary, for /v1/models, /props and /infill: 0 or "" if
    unknown. `n_slots` sequences run at once; `size_bytes` are those of its weights; the file was
    written at `modified_s` (unix time); `metadata` has GGUF's keys, and none of a .m file."""

    path: str = ""
    format: str = ""  # "gguf", "safetensors" or "m"
    arch: str = ""
    modified_s: float = 0.0
    metadata: GgufMetadata = field(default_factory=lambda: GgufMetadata({}), compare=False)
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


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model under its id and aliases. `stop_ids` are every id that ends an answer, of the
    tokenizer and of the chat template; `max_seq_len` tokens hold a prompt and its answer."""

    id: str
    tokenizer: TextCodec
    chat_template: PromptTemplate
    engine: EngineClient
    max_seq_len: int
    created: int  # unix time, s
    stop_ids: tuple[int, ...]
    aliases: tuple[str, ...] = ()
    tool_dialect: ToolDialect = GENERIC  # as its chat template writes tool calls
    think_tags: ThinkTags | None = None  # around its thoughts, if it has any
    facts: ModelFacts = field(default_factory=ModelFacts)
    knows_effort: bool = False  # its chat template asks for `reasoning_effort`
    file_name: str = ""  # also a name in requests
    tags: tuple[str, ...] = ()  # told to clients, no more
    template_kwargs: Mapping[str, object] = field(default_factory=dict)  # where requests set none
    reasoning: ReasoningFormat = ReasoningFormat.AUTO  # where requests say "auto"
    defaults: AnswerDefaults = field(default_factory=AnswerDefaults)

    @property
    def names(self) -> tuple[str, ...]:
        names = (self.id, *self.aliases, self.file_name)
        return tuple(dict.fromkeys(name for name in names if name))
