"""Finds the chat template that a model is served with: the one asked for, its own, or ChatML."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from dllama.chat.builtin_templates import BUILTIN_TEMPLATES
from dllama.chat.chat_template import ChatTemplate
from dllama.errors import TemplateError
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.gguf_vocabulary import chat_templates_of_metadata

log = logging.getLogger(__name__)

_MAX_FILE_BYTES = 1 << 20  # the longest templates have 20 kB
_FALLBACK = "chatml"
_BYTE_ORDER_MARK = "\ufeff"  # editors write it before a text, and converters keep it


def find_template(
    metadata: Mapping[str, object],
    override: str | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    now: Callable[[], datetime] = datetime.now,
) -> ChatTemplate:
    """The template of `override` (a name of BUILTIN_TEMPLATES, a file, or the text itself), else
    the one in the metadata, else the tokenizer's own, else ChatML.

    The texts of BOS and EOS are the tokenizer's where one is given, else the metadata's. Raises
    TemplateError where there is no such template, or it is broken.
    """
    bos, eos = (
        (tokenizer.bos_text, tokenizer.eos_text)
        if tokenizer is not None
        else (_token_text(metadata, "bos"), _token_text(metadata, "eos"))
    )
    tool_source: str | None = None
    if override:
        name, source = _read_override(override)
    else:
        own = chat_templates_of_metadata(metadata)
        own = own or dict(tokenizer.chat_templates if tokenizer is not None else {})
        name, source, tool_source = _choose(own)
    return ChatTemplate(
        source.removeprefix(_BYTE_ORDER_MARK),
        bos_token=bos,
        eos_token=eos,
        name=name,
        tool_source=tool_source and tool_source.removeprefix(_BYTE_ORDER_MARK),
        now=now,
    )


def _choose(own: Mapping[str, str]) -> tuple[str, str, str | None]:
    """(name, source, source for tools) of a model's own templates."""
    tool_source = own.get("tool_use")
    if "default" in own:
        return "the model's own", own["default"], tool_source
    if own:
        name = next(iter(own))
        return f"the model's own, {name}", own[name], tool_source
    log.info("the model has no chat template; using %s", _FALLBACK)
    return _FALLBACK, BUILTIN_TEMPLATES[_FALLBACK], None


def _read_override(override: str) -> tuple[str, str]:
    if "{{" in override or "{%" in override:
        return "given on the command line", override
    name = override.lower()
    if name in BUILTIN_TEMPLATES:
        return name, BUILTIN_TEMPLATES[name]
    path = Path(override)
    if any(mark.isspace() for mark in override) and not is_file(path):
        return "given on the command line", override  # a text without any Jinja
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise TemplateError(
                f"The chat template file {path} has {path.stat().st_size} bytes; at most "
                f"{_MAX_FILE_BYTES} are read. Is it a chat template?"
            )
        return str(path), path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(BUILTIN_TEMPLATES)
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise TemplateError(
            f"There is no chat template {override!r}: it is none of the built-in ones ({known}), "
            f"and as a file it cannot be read ({reason})."
        ) from error


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that no path can be
        return False


def _token_text(metadata: Mapping[str, object], name: str) -> str:
    token = metadata.get(f"tokenizer.ggml.{name}_token_id")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(token, int) or not isinstance(tokens, Sequence):
        return ""
    return str(tokens[token]) if 0 <= token < len(tokens) else ""
