"""The prompt of a chat whose last message, of the assistant, is the beginning of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.answers.reasoning import ThinkTags, is_opened, without_block, without_thoughts
from api.served_model import PromptTemplate
from dllama.chat.adaptations import REASONING_KEYS
from dllama.chat.continuation import Cut, joined_parts
from dllama.errors import RequestError

Message = Mapping[str, object]
Tools = Sequence[Mapping[str, object]]


def is_within_thoughts(last: Message, tags: ThinkTags | None) -> bool:
    """True if the beginning of an answer ends before its thoughts do."""
    text = _text_of(last)
    if not text:
        return True
    return tags is not None and _opens(text, tags) and tags.closing not in text


def continued_prompt(
    template: PromptTemplate,
    messages: Sequence[Message],
    tools: Tools | None,
    kwargs: Mapping[str, object],
    tags: ThinkTags | None,
) -> str:
    """Returns the prompt that the answer continues. `tags` are those of the model's thoughts.
    Raises RequestError for thoughts that the model does not have, and TemplateError."""
    *before, last = messages
    text = _text_of(last)

    def up_to(cut: Cut) -> str | None:
        return template.render_up_to(cut, messages, tools, **kwargs)

    if not text:
        return up_to(Cut.AFTER_THOUGHTS) or _open_thoughts(up_to(Cut.BEFORE_TEXT), last, tags)
    if tags is not None and (_opens(text, tags) or tags.closing in text):
        # The text brings its own thoughts, which templates drop or write a second time.
        head = up_to(Cut.BEFORE_TEXT)
        if head is not None:
            opening = "" if _opens(text, tags) else tags.opening + tags.lead
            return without_block(head, tags) + opening + text
    found = up_to(Cut.AFTER_TEXT)
    if found is not None:
        return found
    opened = template.render(before, tools, True, **kwargs)
    return (opened if tags is None else without_thoughts(opened, tags)) + text


def _text_of(message: Message) -> str:
    return str(joined_parts(message.get("content")) or "")


def _opens(text: str, tags: ThinkTags) -> bool:
    return text.lstrip().startswith(tags.opening)


def _open_thoughts(head: str | None, last: Message, tags: ThinkTags | None) -> str:
    """Returns the prompt with thoughts that the template itself does not write."""
    if head is None or tags is None:
        raise RequestError(
            "The last message cannot be continued: it has thoughts and no content, and the model's "
            "chat template knows no thoughts. Send content, or end with a user message.",
            param="messages",
        )
    head = without_block(head, tags)
    opening = "" if is_opened(head, tags) else tags.opening + tags.lead
    thoughts = next(str(last[key]) for key in REASONING_KEYS if last.get(key))
    return head + opening + thoughts
