"""Prompts that end within the last message, for an answer that continues it.

The message is rendered with a mark at the end of its text, and the prompt ends before the mark: so
it stands in the prompt as the template itself writes it, and what would end its turn is left out.
Source of the rule: transformers' `continue_final_message` (utils/chat_template_utils.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from dllama.chat.adaptations import REASONING_KEYS, Messages

Render = Callable[[Messages], str]

# Templates that strip texts show themselves: the space at its end is then missing.
_MARK = "Qcontinuedhere "
_BARE_MARK = _MARK.rstrip()


def continued_text(render: Render, messages: Messages) -> str | None:
    """Returns the prompt that ends with the content of the last message; None if the template
    writes it in no form that can be continued."""
    *before, last = messages
    content = last.get("content")
    rendered = render([*before, {**last, "content": _marked(content)}])
    return _up_to_mark(rendered, _last_text(content))


def continued_thoughts(render: Render, messages: Messages) -> str | None:
    """Returns the prompt that ends with the thoughts of the last message; None if the template
    does not write them."""
    *before, last = messages
    thoughts = next((last[key] for key in REASONING_KEYS if last.get(key)), "")
    marked = {key: thoughts + _MARK for key in REASONING_KEYS if last.get(key) == thoughts}
    return _up_to_mark(render([*before, {**last, **marked}]), thoughts)


def text_before(render: Render, messages: Messages) -> str | None:
    """Returns the prompt up to the content of the last message; None if the template does not
    write it."""
    *before, last = messages
    is_list = isinstance(last.get("content"), list)
    content = [{"type": "text", "text": _MARK}] if is_list else _MARK
    head, mark, _ = render([*before, {**last, "content": content}]).rpartition(_BARE_MARK)
    return head if mark else None


def joined_parts(content: object) -> object:
    """Returns a content of parts as the text that is continued, with blank lines between them, as
    llama-server has it; transformers continues parts only in templates that know them."""
    if isinstance(content, list):
        return "\n\n".join(part["text"] for part in content)
    return content


def _marked(content: object) -> object:
    if isinstance(content, list):
        *parts, last = content
        return [*parts, {**last, "text": last["text"] + _MARK}]
    return f"{content or ''}{_MARK}"


def _last_text(content: object) -> str:
    if isinstance(content, Sequence) and not isinstance(content, str):
        return str(content[-1]["text"])
    return str(content or "")


def _up_to_mark(rendered: str, text: str) -> str | None:
    """Returns what stands before the mark, without white space at its end where the template has
    stripped the text; None where the text or the mark is missing."""
    head, mark, tail = rendered.rpartition(_BARE_MARK)
    if not mark or text.strip() not in head:
        return None
    return head if tail.startswith(" ") else head.rstrip()


class Cut(StrEnum):
    """The place within the last message where a prompt ends."""

    AFTER_TEXT = "after its content"
    AFTER_THOUGHTS = "after its thoughts"
    BEFORE_TEXT = "before its content"


CUTS: dict[Cut, Callable[[Render, Messages], str | None]] = {
    Cut.AFTER_TEXT: continued_text,
    Cut.AFTER_THOUGHTS: continued_thoughts,
    Cut.BEFORE_TEXT: text_before,
}
