"""The vocabulary that a GGUF file's metadata describes (keys `tokenizer.*`).

Source: the GGUF specification, and for what holds where a key is absent, llama.cpp
(src/llama-vocab.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dllama.errors import TokenizerError
from dllama.tokenizer.bpe_engine import split_merges
from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS, PreTokenizer, find_pre_tokenizer
from dllama.tokenizer.vocabulary import Kind, PrefixRule, TokenType, Vocabulary

log = logging.getLogger(__name__)

KINDS = {"llama": Kind.SPM, "gpt2": Kind.BPE}
_TEMPLATE_KEY = "tokenizer.chat_template"
IGNORE_MERGES_KEY = "dllama.tokenizer.ignore_merges"  # ours too; absent: as `pre` says
PATTERNS_KEY = "dllama.tokenizer.patterns"  # ours: expressions that no name of `pre` stands for
IS_NFC_KEY = "dllama.tokenizer.is_nfc"  # ours, beside them
OWN_PATTERNS = "dllama-patterns"
"""`pre` of a file with expressions of its own, where no name is near: other programs refuse it."""
STRIPS_RIGHT_KEY = "dllama.tokenizer.strips_right"  # ours: ids of such tokens
PREFIX_RULE_KEY = "dllama.tokenizer.prefix_rule"  # ours: GGUF has no key for it
_GIVE_ANOTHER = "convert the model again, or give another tokenizer with --tokenizer"
_NO_ID = 2**32 - 1  # -1 as some converters wrote it: no such token
MAX_PATTERNS, MAX_PATTERN = 32, 16_384
# Special tokens after which Phi-3's tokenizer drops white space: all but these.
_PHI3_KEEPS = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True, slots=True)
class _Defaults:
    """Special ids that a file need not name."""

    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None


_DEFAULTS = {Kind.SPM: _Defaults(bos_id=1, eos_id=2, unk_id=0), Kind.BPE: _Defaults()}


def vocabulary_of_metadata(metadata: Mapping[str, object]) -> Vocabulary:
    """Returns the vocabulary in a file's metadata. Raises TokenizerError where none can be made."""
    kind = _kind(metadata)
    tokens = _texts(metadata, "tokens")
    n, defaults = len(tokens), _DEFAULTS[kind]
    types = _numbers(metadata, "token_type", n)
    eos_id = _id(metadata, "eos", n, defaults.eos_id)
    bos_id = _id(metadata, "bos", n, defaults.bos_id)
    words = _words(metadata) if kind is Kind.BPE else PRE_TOKENIZERS["default"]
    adds_bos = kind is Kind.SPM or (words.add_bos and bos_id is not None)
    int_types = [int(t) for t in types] if types else [int(TokenType.NORMAL)] * n
    ends = (_id(metadata, name, n, None) for name in ("eot", "eom"))
    return Vocabulary(
        kind=kind,
        tokens=[text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)],
        types=int_types,
        scores=_scores(metadata, n) if kind is Kind.SPM else (),
        merges=split_merges(_texts(metadata, "merges")) if kind is Kind.BPE else (),
        words=words,
        bos_id=bos_id,
        eos_id=eos_id,
        unk_id=_id(metadata, "unknown", n, defaults.unk_id),
        extra_end_ids=frozenset(i for i in ends if i is not None),
        add_bos=_flag(metadata, "add_bos_token", default=adds_bos),
        add_eos=_flag(metadata, "add_eos_token", default=False),
        add_space_prefix=_flag(metadata, "add_space_prefix", default=kind is Kind.SPM),
        prefix_rule=_prefix_rule(metadata),
        strips_right=_strips_right(metadata, tokens, int_types),
        chat_templates=chat_templates_of_metadata(metadata),
    )


def chat_templates_of_metadata(metadata: Mapping[str, object]) -> dict[str, str]:
    """The Jinja sources in a file's metadata, by name; "default" is the usual one."""
    found: dict[str, str] = {}
    for key in metadata:
        if key == _TEMPLATE_KEY or key.startswith(_TEMPLATE_KEY + "."):
            source = metadata[key]
            if isinstance(source, str) and source.strip():
                found[key[len(_TEMPLATE_KEY) + 1 :] or "default"] = source
    return found


def _kind(metadata: Mapping[str, object]) -> Kind:
    model = _text(metadata, "tokenizer.ggml.model", "")
    if not model or "tokenizer.ggml.tokens" not in metadata:
        raise TokenizerError(
            "The model file holds no tokenizer; give one with --tokenizer (a .t file, or a GGUF "
            "file of the same model family)."
        )
    if model not in KINDS:
        known = " and ".join(f"{name!r}" for name in KINDS)
        raise TokenizerError(
            f"The model file's tokenizer is of the kind {model!r}; this version knows {known}. "
            f"Give a tokenizer of such a kind with --tokenizer."
        )
    return KINDS[model]


def _text(metadata: Mapping[str, object], key: str, default: str) -> str:
    value = metadata.get(key, default)
    if not isinstance(value, str):
        raise TokenizerError(f"The metadata value {key} is no text; {_GIVE_ANOTHER}.")
    return value


def _texts(metadata: Mapping[str, object], name: str) -> Sequence[str]:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if value is None:
        raise TokenizerError(f"The tokenizer lacks {key}; {_GIVE_ANOTHER}.")
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TokenizerError(f"The metadata value {key} is no list of texts; {_GIVE_ANOTHER}.")
    if not all(isinstance(text, str) for text in value):
        raise TokenizerError(f"The metadata value {key} holds more than texts; {_GIVE_ANOTHER}.")
    return value


def _numbers(metadata: Mapping[str, object], name: str, n: int) -> list[float]:
    """The numbers under a key, [] where it is absent; there must be one for every token."""
    key = f"tokenizer.ggml.{name}"
    if key not in metadata:
        return []
    array = np.asarray(metadata[key])
    if array.ndim != 1 or array.dtype.kind not in "iuf" or not np.all(np.isfinite(array)):
        raise TokenizerError(f"The metadata value {key} is no list of numbers; {_GIVE_ANOTHER}.")
    if len(array) != n:
        raise TokenizerError(
            f"The tokenizer has {n} tokens but {len(array)} entries in {key}; both must be equal. "
            f"The file is corrupt: {_GIVE_ANOTHER}."
        )
    numbers: list[float] = array.tolist()
    return numbers


def _scores(metadata: Mapping[str, object], n: int) -> list[float]:
    scores = _numbers(metadata, "scores", n)
    if not scores:
        raise TokenizerError(
            f"The tokenizer lacks tokenizer.ggml.scores, by which pieces are merged; "
            f"{_GIVE_ANOTHER}."
        )
    return scores


def _id(metadata: Mapping[str, object], name: str, n: int, default: int | None) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    value = metadata.get(key)
    if value is None:
        return default if default is not None and default < n else None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if value == _NO_ID:
            return None
        if 0 <= value < n:
            return int(value)
    raise TokenizerError(
        f"The metadata value {key} is {value!r:.80}; expected a token between 0 and {n - 1}. "
        f"The file is corrupt: {_GIVE_ANOTHER}."
    )


def _flag(metadata: Mapping[str, object], name: str, *, default: bool) -> bool:
    return _own_flag(metadata, f"tokenizer.ggml.{name}", default=default)


def _own_flag(metadata: Mapping[str, object], key: str, *, default: bool) -> bool:
    value = metadata.get(key, default)
    if not isinstance(value, bool | np.bool_):
        raise TokenizerError(
            f"The metadata value {key} is {value!r}; expected true or false. "
            f"The file is corrupt: {_GIVE_ANOTHER}."
        )
    return bool(value)


def _words(metadata: Mapping[str, object]) -> PreTokenizer:
    """Returns the rule by which words are cut: that of a name, with what our own keys change."""
    pre, patterns = _text(metadata, "tokenizer.ggml.pre", ""), metadata.get(PATTERNS_KEY)
    if not pre and patterns is None:
        log.warning("the file does not say how its tokenizer cuts words; taking 'default'")
    if patterns is None:
        words = find_pre_tokenizer(pre or "default")
    else:
        is_nfc = _own_flag(metadata, IS_NFC_KEY, default=False)
        words = PreTokenizer(_patterns(patterns), is_nfc=is_nfc)
    takes_words = _own_flag(metadata, IGNORE_MERGES_KEY, default=words.ignore_merges)
    return replace(words, ignore_merges=takes_words)


def _patterns(value: object) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= MAX_PATTERNS:
        found = [text for text in value if isinstance(text, str) and len(text) <= MAX_PATTERN]
        if len(found) == len(value):
            return tuple(found)
    raise TokenizerError(
        f"The metadata value {PATTERNS_KEY} is no list of at most {MAX_PATTERNS} expressions "
        f"of at most {MAX_PATTERN} characters each. "
        f"The file is corrupt: {_GIVE_ANOTHER}."
    )


def _prefix_rule(metadata: Mapping[str, object]) -> PrefixRule:
    name = _text(metadata, PREFIX_RULE_KEY, PrefixRule.ALWAYS)
    try:
        return PrefixRule(name)
    except ValueError:
        raise TokenizerError(
            f"The metadata value {PREFIX_RULE_KEY} is {name!r}; expected one of "
            f"{', '.join(PrefixRule)}. The file is of a newer version: {_GIVE_ANOTHER}."
        ) from None


def _ids(metadata: Mapping[str, object], key: str, n: int) -> list[int]:
    found = np.asarray(metadata[key])
    if found.ndim != 1 or found.dtype.kind not in "iu" or np.any((found < 0) | (found >= n)):
        raise TokenizerError(
            f"The metadata value {key} is no list of tokens from 0 to {n - 1}. The file is "
            f"corrupt: {_GIVE_ANOTHER}."
        )
    ids: list[int] = found.tolist()
    return ids


def _strips_right(
    metadata: Mapping[str, object], tokens: Sequence[str], types: Sequence[int]
) -> frozenset[int]:
    """The tokens after which white space is dropped. Phi-3's special tokens are such; no key of
    GGUF says so, so the name of the model has to (as in llama.cpp)."""
    if STRIPS_RIGHT_KEY in metadata:
        return frozenset(_ids(metadata, STRIPS_RIGHT_KEY, len(tokens)))
    name = str(metadata.get("general.name", "")).lower()
    if "phi-3" not in name and "phi3" not in name:
        return frozenset()
    special = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return frozenset(
        i for i, kind in enumerate(types) if kind in special and tokens[i] not in _PHI3_KEEPS
    )
