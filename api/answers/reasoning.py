"""What a model thinks before it answers, split off from its text. Knows characters, not tokens.

The marks are those that a model's chat template writes; a template may already open them, so that
the answer begins with the thoughts, or close them, so that there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class ReasoningFormat(StrEnum):
    NONE = "none"  # thoughts stay in the content, marks and all
    AUTO = "auto"
    DEEPSEEK = "deepseek"  # thoughts as `reasoning_content`


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """The marks around a model's thoughts, and what the models write after the first one."""

    opening: str
    closing: str
    lead: str = ""


TAGS = (
    ThinkTags("<think>", "</think>", "\n"),  # DeepSeek, Qwen, SmolLM and most others
    ThinkTags("[THINK]", "[/THINK]"),  # Mistral
    ThinkTags("<|channel|>analysis<|message|>", "<|end|>"),  # gpt-oss
    ThinkTags("<seed:think>", "</seed:think>"),
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere's Command
)


def tags_of(template_source: str) -> ThinkTags | None:
    """Returns the marks that a chat template writes around thoughts, None if it writes none."""
    for tags in TAGS:
        head = tags.opening.partition("<|message|>")[0]
        if head in template_source or (tags.closing in template_source and tags is TAGS[0]):
            return tags
    return None


def is_opened(prompt: str, tags: ThinkTags) -> bool:
    """True if a prompt ends within thoughts, so that the answer begins with them."""
    return prompt.rstrip().endswith(tags.opening)


def without_thoughts(prompt: str, tags: ThinkTags) -> str:
    """Returns the prompt with the thoughts that it opens closed at once: the model must not
    think."""
    return f"{prompt.rstrip()}\n\n{tags.closing}\n\n" if is_opened(prompt, tags) else prompt


def without_block(prompt: str, tags: ThinkTags) -> str:
    """Returns the prompt without the empty thoughts that it ends with, if it does."""
    end = prompt.rstrip()
    if not end.endswith(tags.closing):
        return prompt
    head = end.removesuffix(tags.closing).rstrip()
    return head.removesuffix(tags.opening) if head.endswith(tags.opening) else prompt


class _State(StrEnum):
    BEGIN = "begin"  # nothing but white space so far
    THOUGHTS = "thoughts"
    AFTER = "after"  # white space after the thoughts
    CONTENT = "content"


class ReasoningSplitter:
    """Splits text, however it is cut into pieces, into (is_reasoning, text) pairs.

    Thoughts stand at the beginning only. White space around them is dropped. `is_open`: the prompt
    has opened them; `is_begun`: and it has some of their text, which goes on.
    """

    def __init__(self, tags: ThinkTags, *, is_open: bool, is_begun: bool = False) -> None:
        self._tags = tags
        self._state = _State.THOUGHTS if is_open else _State.BEGIN
        self._held = ""
        self._has_thought = is_begun

    def push(self, text: str) -> list[tuple[bool, str]]:
        """Returns the pieces that no later text can change."""
        self._held += text
        return [piece for piece in self._take() if piece[1]]

    def flush(self) -> list[tuple[bool, str]]:
        """Returns the text that was held back; no more text comes."""
        held, self._held = self._held, ""
        if self._state is _State.THOUGHTS:
            held = held.rstrip() if self._has_thought else held.strip()
        if not held:
            return []
        return [(self._state is _State.THOUGHTS, held)]

    def _take(self) -> Iterator[tuple[bool, str]]:
        if self._state is _State.BEGIN:
            begun = self._held.lstrip()
            if begun.startswith(self._tags.opening):
                self._held = begun[len(self._tags.opening) :]
                self._state = _State.THOUGHTS
            elif not self._tags.opening.startswith(begun):
                self._state = _State.CONTENT
        if self._state is _State.THOUGHTS:
            yield True, self._take_thoughts()
        if self._state is _State.AFTER:
            self._held = self._held.lstrip()
            if self._held:
                self._state = _State.CONTENT
        if self._state is _State.CONTENT:
            held, self._held = self._held, ""
            yield False, held

    def _take_thoughts(self) -> str:
        if not self._has_thought:
            self._held = self._held.lstrip()
        thought, mark, rest = self._held.partition(self._tags.closing)
        if mark:
            self._held, self._state = rest, _State.AFTER
            return thought.rstrip()
        certain = self._held[: len(self._held) - held_back(self._held, self._tags.closing)].rstrip()
        self._held = self._held[len(certain) :]
        self._has_thought = self._has_thought or bool(certain)
        return certain


def held_back(text: str, mark: str) -> int:
    """Returns the length of the longest end of `text` that `mark` may begin with."""
    for n in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-n:]):
            return n
    return 0
