"""The tokenizer of a checkpoint, under the keys of GGUF's metadata: tokens, types, merges or
scores, special ids, the rule by which words are cut, and the chat templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dllama.errors import TokenizerError
from dllama.formats.checkpoint.folder import TOKENIZER_CONFIG, read_json
from dllama.formats.checkpoint.generation_keys import end_ids
from dllama.formats.checkpoint.merge_scores import merge_scores
from dllama.formats.checkpoint.tokenizer_files import read_tokenizer
from dllama.formats.checkpoint.tokenizer_json import TokenizerJson

TEMPLATE = "chat_template.jinja"
MORE_TEMPLATES = "additional_chat_templates"
MAX_TEMPLATE_BYTES = 1 << 20


def tokenizer_metadata(folder: Path) -> dict[str, object]:
    """Returns the metadata of the tokenizer in a folder. Raises TokenizerError where it is of a
    kind that this version does not know; ModelFileError where a file is damaged."""
    parts = read_tokenizer(folder)
    config = folder / TOKENIZER_CONFIG
    said = read_json(config) if config.exists() else {}
    tokens, types = _tokens(parts)
    ids = {text: i for i, text in reversed(list(enumerate(tokens)))}
    keys: dict[str, object] = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        **_kind_keys(parts, tokens),
        **_special_keys(folder, parts, said, ids),
    }
    return keys | _stripping_keys(parts) | _template_keys(folder, said)


def _tokens(parts: TokenizerJson) -> tuple[list[str], list[int]]:
    """Returns text and type of every token; ids that nothing has are unused."""
    # Imported here, as an engine opens models and seldom reads text.
    from dllama.tokenizer.vocabulary import BYTE_TEXTS, TokenType

    n = 1 + max([*parts.vocab.values(), *(token.id for token in parts.added)])
    if n > 2 * (len(parts.vocab) + len(parts.added)):
        raise TokenizerError(
            f"{parts.path} numbers its tokens up to {n - 1}, but has only "
            f"{len(parts.vocab) + len(parts.added)}; it is damaged. Download it again."
        )
    tokens = [f"[PAD{i}]" for i in range(n)]
    types = [int(TokenType.UNUSED)] * n
    for text, i in parts.vocab.items():
        is_byte = parts.has_bytes and text in BYTE_TEXTS
        tokens[i], types[i] = text, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in parts.added:
        kind = TokenType.CONTROL if added.is_special else TokenType.USER_DEFINED
        tokens[added.id], types[added.id] = added.text, int(kind)
    if parts.unk is not None and parts.unk in parts.vocab:
        types[parts.vocab[parts.unk]] = int(TokenType.UNKNOWN)
    return tokens, types


def _stripping_keys(parts: TokenizerJson) -> dict[str, object]:
    """Returns the tokens after which white space is dropped, where there are any."""
    from dllama.tokenizer.gguf_vocabulary import STRIPS_RIGHT_KEY

    ids = sorted(added.id for added in parts.added if added.strips_right)
    return {STRIPS_RIGHT_KEY: np.array(ids, np.int32)} if ids else {}


def _kind_keys(parts: TokenizerJson, tokens: list[str]) -> dict[str, object]:
    from dllama.tokenizer.gguf_vocabulary import PREFIX_RULE_KEY
    from dllama.tokenizer.vocabulary import PrefixRule

    if parts.patterns is None:
        return {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.scores": np.array(merge_scores(parts, tokens), np.float32),
            "tokenizer.ggml.add_space_prefix": parts.prefix is not None,
            PREFIX_RULE_KEY: parts.prefix or PrefixRule.ALWAYS.value,
        }
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in parts.merges],
        **_rule_keys(parts, parts.patterns),
    }


def _rule_keys(parts: TokenizerJson, patterns: tuple[str, ...]) -> dict[str, object]:
    """Returns GGUF's name for the rule by which words are cut, and keys of ours for what it does
    not say: the expressions themselves where it has none, or has others."""
    from dllama.tokenizer import gguf_vocabulary as ours
    from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS, name_of_rule, spelled

    name = name_of_rule(patterns, ignore_merges=parts.ignore_merges, is_nfc=parts.is_nfc)
    if name is None and parts.drops_rest:
        raise TokenizerError(
            f"{parts.path} leaves out what is between words, by the rule "
            f"{' then '.join(patterns)[:300]!r}; this version knows that of rules that leave "
            f"nothing out. Give another tokenizer with --tokenizer (a GGUF file of the model)."
        )
    keys: dict[str, object] = {"tokenizer.ggml.pre": name or ours.OWN_PATTERNS}
    rule = PRE_TOKENIZERS.get(name or "")
    if rule is None or spelled(rule.patterns) != spelled(patterns):
        keys[ours.PATTERNS_KEY], keys[ours.IS_NFC_KEY] = list(patterns), parts.is_nfc
        rule = None
    if parts.ignore_merges != (rule is not None and rule.ignore_merges):
        keys[ours.IGNORE_MERGES_KEY] = parts.ignore_merges
    return keys


def _special_keys(
    folder: Path, parts: TokenizerJson, said: Mapping[str, object], ids: Mapping[str, int]
) -> dict[str, object]:
    found: dict[str, object] = {}
    bos, eos = _token_id(said, "bos_token", ids), _token_id(said, "eos_token", ids)
    ends = [i for i in end_ids(folder) if i != eos and i < len(ids)]
    if eos is None and ends:
        eos = ends.pop(0)
    if bos is None and parts.before:
        bos = ids.get(parts.before[0])
    named = {
        "bos": bos,
        "eos": eos,
        "eot": next(iter(ends), None),
        "eom": next(iter(ends[1:]), None),
    }
    if parts.has_bytes and parts.unk in ids:
        named["unknown"] = ids[parts.unk or ""]
    for name, i in named.items():
        if i is not None:
            found[f"tokenizer.ggml.{name}_token_id"] = i
    for name, i, texts in (("bos", bos, parts.before), ("eos", eos, parts.after)):
        flag = said.get(f"add_{name}_token")
        adds = flag if isinstance(flag, bool) else any(ids.get(text) == i for text in texts)
        found[f"tokenizer.ggml.add_{name}_token"] = adds and i is not None
    return found


def _token_id(said: Mapping[str, object], key: str, ids: Mapping[str, int]) -> int | None:
    """Returns the id of a token that tokenizer_config.json names by its text."""
    token = said.get(key)
    text = token.get("content") if isinstance(token, dict) else token
    return ids.get(text) if isinstance(text, str) else None


def _template_keys(folder: Path, said: Mapping[str, object]) -> dict[str, object]:
    """Returns the chat templates: those in files of their own count before those in
    tokenizer_config.json."""
    found: dict[str, str] = {}
    template = said.get("chat_template")
    if isinstance(template, str):
        found["default"] = template
    for row in template if isinstance(template, list) else ():
        if isinstance(row, dict) and isinstance(row.get("template"), str):
            found[str(row.get("name", "default"))] = row["template"]
    for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja")):
        found[path.stem] = _template_text(path)
    if (folder / TEMPLATE).exists():
        found["default"] = _template_text(folder / TEMPLATE)
    return {
        f"tokenizer.chat_template{'' if name == 'default' else '.' + name}": source
        for name, source in found.items()
    }


def _template_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise TokenizerError(f"{path} is too long for a chat template; download it again.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"The chat template {path} cannot be read ({error}).") from error
