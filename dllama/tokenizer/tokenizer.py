"""Text to token ids and back, for every kind of vocabulary."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from dllama.errors import TokenizerError
from dllama.tokenizer.bpe_engine import build_bpe_engine
from dllama.tokenizer.byte_alphabet import from_alphabet
from dllama.tokenizer.gguf_vocabulary import vocabulary_of_metadata
from dllama.tokenizer.special_tokens import SpecialTokens, find_end_ids
from dllama.tokenizer.spm_engine import LibraryEngine, TextEngine, build_spm_engine
from dllama.tokenizer.stream_decoder import StreamDecoder
from dllama.tokenizer.t_file import read_t_file
from dllama.tokenizer.t_vocabulary import vocabulary_of_t_file
from dllama.tokenizer.vocabulary import (
    BYTE_TEXTS,
    SPACE_MARK,
    Kind,
    PrefixRule,
    TokenType,
    Vocabulary,
)

# The library's own threads would compete with the compute threads; a user's own setting stays.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_SPECIAL_TYPES = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
_CONTROL_TYPES = (TokenType.CONTROL, TokenType.UNKNOWN)


class Tokenizer:
    """Encodes and decodes with one vocabulary; safe to use from several threads at once.

    Raises TokenizerError for ids outside the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._end_ids = find_end_ids(vocabulary.tokens, vocabulary.types)
        self._types = list(vocabulary.types)
        for i in self._end_ids:
            self._types[i] = TokenType.CONTROL  # text may never become an end of turn
        self._vocabulary = replace(vocabulary, types=self._types)
        self._prefix_rule = vocabulary.prefix_rule
        self._bytes: list[bytes | None] = [None] * len(vocabulary.tokens)
        specials = {vocabulary.tokens[i]: i for i in self._ids_of_types(_SPECIAL_TYPES)}
        always = {vocabulary.tokens[i]: i for i in self._ids_of_types((TokenType.USER_DEFINED,))}
        self._all_specials = SpecialTokens(specials, vocabulary.strips_right)
        self._user_defined = SpecialTokens(always, vocabulary.strips_right)
        self._engine = _build_engine(self._vocabulary)

    @classmethod
    def from_gguf_metadata(cls, metadata: Mapping[str, object]) -> Tokenizer:
        """The tokenizer that a GGUF file's metadata describes."""
        return cls(vocabulary_of_metadata(metadata))

    @classmethod
    def from_t_file(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a distributed-llama `.t` file."""
        return cls(vocabulary_of_t_file(read_t_file(path)))

    @property
    def is_fast(self) -> bool:
        """Returns whether the `tokenizers` library encodes, instead of the slower merge by
        score."""
        return isinstance(self._engine, LibraryEngine)

    @property
    def vocab_size(self) -> int:
        return len(self._types)

    @property
    def kind(self) -> Kind:
        return self._vocabulary.kind

    @property
    def bos_id(self) -> int | None:
        return self._vocabulary.bos_id

    @property
    def eos_id(self) -> int | None:
        return self._vocabulary.eos_id

    @property
    def add_bos(self) -> bool:
        return self._vocabulary.add_bos

    @property
    def add_eos(self) -> bool:
        return self._vocabulary.add_eos

    @property
    def add_space_prefix(self) -> bool:
        return self._vocabulary.add_space_prefix

    @property
    def token_texts(self) -> Sequence[str]:
        """Every token's text as the vocabulary writes it, in the order of ids."""
        return self._vocabulary.tokens

    @property
    def bos_text(self) -> str:
        """The text of the BOS token; "" where there is none."""
        return "" if self.bos_id is None else self._vocabulary.tokens[self.bos_id]

    @property
    def eos_text(self) -> str:
        """The text of the EOS token; "" where there is none."""
        return "" if self.eos_id is None else self._vocabulary.tokens[self.eos_id]

    @property
    def chat_templates(self) -> Mapping[str, str]:
        """The Jinja sources that came with the tokenizer, by name; "default" is the usual one."""
        return self._vocabulary.chat_templates

    @cached_property
    def eog_ids(self) -> frozenset[int]:
        """Every token that ends a generation: eos, eot, eom, and known ends by their text."""
        named = {self.eos_id} - {None}
        return self._end_ids | self._vocabulary.extra_end_ids | {i for i in named if i is not None}

    def encode(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """The ids of a text. With `add_special`, BOS and EOS are added where the model wants
        them (BOS is not doubled); with `parse_special`, special tokens written in the text are
        taken as such, otherwise they are text like any other."""
        ids: list[int] = []
        specials = self._all_specials if parse_special else self._user_defined
        has_prefix = self.add_space_prefix
        for part in specials.cut(_as_unicode(text)):
            if isinstance(part, int):
                ids.append(part)
                has_prefix = self.add_space_prefix and self._prefix_rule is not PrefixRule.AT_START
            else:
                ids += self._engine.encode(self._prepared(part, has_prefix))
                has_prefix = False
        if add_special:
            ids = self._with_bos(ids)
        if add_special and self.add_eos and self.eos_id is not None:
            ids.append(self.eos_id)
        return ids

    def encode_prompt(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of a text that an answer is to follow: BOS is added where the model wants it, but
        never EOS, which would end the text before its answer begins."""
        return self._with_bos(self.encode(text, parse_special=parse_special))

    def _with_bos(self, ids: list[int]) -> list[int]:
        """The ids after BOS, if the model wants one there and they do not begin with it."""
        if not self.add_bos or self.bos_id is None or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def encode_inside(self, text: str) -> list[int]:
        """The ids of a text that stands within another: no space is put before it, no token of
        its own added, and nothing in it is a control token."""
        ids: list[int] = []
        for part in self._user_defined.cut(_as_unicode(text)):
            ids += (
                [part]
                if isinstance(part, int)
                else self._engine.encode(self._prepared(part, False))
            )
        return ids

    def decode(
        self, ids: Iterable[int], *, skip_special: bool = False, is_continuation: bool = False
    ) -> str:
        """The text of tokens; invalid UTF-8 becomes U+FFFD. `skip_special` leaves out control
        tokens; `is_continuation` keeps the space that a SentencePiece answer begins with."""
        decoder = self.decoder(skip_special=skip_special, is_continuation=is_continuation)
        return decoder.push(ids) + decoder.flush()

    def decoder(
        self,
        skip_special: bool = True,
        *,
        is_continuation: bool = True,
        kept: Collection[int] = (),
    ) -> StreamDecoder:
        """A decoder for tokens that come one by one, by default the answer to a prompt. Control
        tokens in `kept` are text all the same."""
        return StreamDecoder(
            self, skip_special=skip_special, is_continuation=is_continuation, kept=kept
        )

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; they may be part of a character only."""
        self._check(token)
        raw = self._bytes[token]
        if raw is None:
            raw = self._bytes[token] = self._make_bytes(token)
        return raw

    def token_text(self, token: int) -> str:
        """The text of one token, U+FFFD for a part of a character."""
        return self.token_bytes(token).decode("utf-8", "replace")

    def is_special(self, token: int) -> bool:
        """Returns whether the encoder takes the token out of a text as a whole, before any
        merging."""
        self._check(token)
        return self._types[token] in _SPECIAL_TYPES

    def is_control(self, token: int) -> bool:
        """Returns whether the token is a control token: left out of answers, never made from plain
        text."""
        self._check(token)
        return self._types[token] in _CONTROL_TYPES

    def _check(self, token: int) -> None:
        if not 0 <= token < len(self._types):
            raise TokenizerError(
                f"There is no token {token}; the vocabulary has {len(self._types)}, numbered from "
                f"0. Tokens and tokenizer belong to different models."
            )

    def _ids_of_types(self, types: tuple[TokenType, ...]) -> list[int]:
        return [i for i, kind in enumerate(self._types) if kind in types]

    def _prepared(self, text: str, has_prefix: bool) -> str:
        if self._vocabulary.kind is Kind.BPE:
            return text
        if has_prefix and self._prefix_rule is not PrefixRule.ALWAYS:
            has_prefix = not text.startswith((" ", SPACE_MARK))
        return (" " * has_prefix + text).replace(" ", SPACE_MARK)

    def _make_bytes(self, token: int) -> bytes:
        text, kind = self._vocabulary.tokens[token], self._types[token]
        if kind == TokenType.BYTE and text in BYTE_TEXTS:
            return bytes([BYTE_TEXTS[text]])
        if kind in _CONTROL_TYPES:
            return text.encode()
        if self._vocabulary.kind is Kind.SPM:
            return text.replace(SPACE_MARK, " ").encode()
        return text.encode() if kind == TokenType.USER_DEFINED else from_alphabet(text)


def _build_engine(vocabulary: Vocabulary) -> TextEngine:
    if vocabulary.kind is Kind.SPM:
        return build_spm_engine(vocabulary)
    return LibraryEngine(build_bpe_engine(vocabulary))


def _as_unicode(text: str) -> str:
    """The text with halves of surrogate pairs joined, or replaced by U+FFFD where alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
