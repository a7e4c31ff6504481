"""How an answer to one prompt is held to a form, and how its text is read: the grammar for the
engine, the control tokens that count as text, the lines it may have, thoughts and tool calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from api.answers.events import Part, Text, Thought
from api.answers.reasoning import ReasoningFormat, ReasoningSplitter, ThinkTags, is_opened
from api.answers.stop import LineRules, StopScanner
from api.requests.answer_format import AnswerFormat
from api.requests.prompts.continuation import is_within_thoughts
from api.requests.prompts.conversation import Conversation
from api.served_model import ServedModel
from api.tools.call_grammar import Thoughts, answer_grammar
from api.tools.call_reader import CallReader
from api.tools.dialects import GENERIC, ToolDialect
from dllama.constraints.grammars import whole_answer


class MessageReader:
    """Tells the text of one choice apart into thoughts, text and tool calls. `push` and `finish`
    give parts, which do not depend on how the text was cut into pieces.

    A stop string is looked for in the text only: thoughts and calls may hold it. After one there
    are no more parts.
    """

    def __init__(
        self,
        index: int,
        splitter: ReasoningSplitter | None,
        calls: CallReader | None,
        stops: StopScanner,
    ) -> None:
        self._index = index
        self._splitter = splitter
        self._calls = calls
        self._stops = stops

    @property
    def has_calls(self) -> bool:
        """True once a tool call is complete."""
        return self._calls is not None and self._calls.n_complete > 0

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        if self._splitter is None:
            return self._stopped(self._read(text))
        return self._stopped(self._split(self._splitter.push(text)))

    def finish(self) -> list[Part]:
        """Returns the parts that were held back; the text has ended."""
        parts = [] if self._splitter is None else self._split(self._splitter.flush())
        if self._calls is not None:
            parts += self._calls.flush()
        parts = self._stopped(parts)
        held = self._stops.flush()
        return [*parts, Text(self._index, held)] if held else parts

    def _stopped(self, parts: list[Part]) -> list[Part]:
        """Returns the parts before a stop string, without text that may become one."""
        certain: list[Part] = []
        for part in parts:
            if self._stops.found is not None:
                break
            text = self._stops.push(part.text) if isinstance(part, Text) else self._stops.flush()
            if text:
                certain.append(Text(self._index, text))
            if not isinstance(part, Text):
                certain.append(part)
        return certain

    def _split(self, pieces: Iterable[tuple[bool, str]]) -> list[Part]:
        parts: list[Part] = []
        for is_thought, text in pieces:
            if is_thought:
                parts.append(Thought(self._index, text))
            else:
                parts += self._read(text)
        return parts

    def _read(self, text: str) -> list[Part]:
        return [Text(self._index, text)] if self._calls is None else self._calls.push(text)


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """`kept` are control tokens that the text is to show, because a reader looks for them.
    `tells_usage`: every part of the answer tells the usage so far. `n_indent` and `max_line_s`
    are those of `LineRules`."""

    grammar: str | None = None
    kept: frozenset[int] = frozenset()
    is_message: bool = False
    tags: ThinkTags | None = None  # of thoughts that are split off
    is_open: bool = False  # the prompt has opened them
    is_begun: bool = False  # and ends in the middle of them
    tool_names: tuple[str, ...] = ()
    dialect: ToolDialect = field(default=GENERIC)
    tells_usage: bool = False
    n_indent: int = 0
    max_line_s: float | None = None
    is_silent: bool = False  # nothing is said: the prompt is only read

    def reader(self, index: int, stops: StopScanner) -> MessageReader | None:
        """Returns a reader for the choice `index`, None if the text is the whole answer."""
        if not self.is_message or (self.tags is None and not self.tool_names):
            return None
        splitter = None
        if self.tags:
            splitter = ReasoningSplitter(self.tags, is_open=self.is_open, is_begun=self.is_begun)
        calls = CallReader(self.dialect, self.tool_names, index) if self.tool_names else None
        return MessageReader(index, splitter, calls, stops)

    def line_rules(self) -> LineRules | None:
        """Returns rules for one sequence, None if every line may stand."""
        if not self.n_indent and self.max_line_s is None:
            return None
        return LineRules(self.n_indent, self.max_line_s)


PLAIN = AnswerPlan()  # any text


def text_plan(form: AnswerFormat | None) -> AnswerPlan:
    """Returns the plan of a text completion."""
    return PLAIN if form is None else AnswerPlan(whole_answer(form.part))


def chat_plan(
    model: ServedModel, conversation: Conversation, form: AnswerFormat | None, prompt: str
) -> AnswerPlan:
    """Returns the plan of the next message; `prompt` is the conversation as text."""
    tags, tools, dialect = model.think_tags, conversation.tools, model.tool_dialect
    thoughts = None if tags is None else thoughts_ahead(conversation, prompt, tags)
    grammar = answer_grammar(
        form=None if form is None else form.part,
        tools=tools,
        dialect=dialect,
        thoughts=thoughts,
        control_id=lambda text: control_id(model, text),
    )
    asked = conversation.reasoning
    told = model.reasoning if asked is ReasoningFormat.AUTO else asked
    is_split = thoughts is not None and told is not ReasoningFormat.NONE
    marks = [dialect.mark] if tools.offered else []
    if thoughts is not None:
        marks += [thoughts.tags.opening, thoughts.tags.closing]
    kept = (control_id(model, mark) for mark in marks)
    return AnswerPlan(
        grammar=grammar,
        kept=frozenset(token for token in kept if token is not None),
        is_message=True,
        tags=thoughts.tags if thoughts is not None and is_split else None,
        is_open=thoughts is not None and thoughts.is_open,
        is_begun=thoughts is not None and conversation.is_continued,
        tool_names=tuple(tool.name for tool in tools.offered),
        dialect=dialect,
    )


def thoughts_ahead(conversation: Conversation, prompt: str, tags: ThinkTags) -> Thoughts | None:
    """Returns the thoughts that the next message may begin with, None if it has none: they are
    over, or closed because the model must not think."""
    if conversation.is_continued:
        is_open = is_within_thoughts(conversation.messages[-1], tags)
        return Thoughts(tags, is_open) if is_open else None
    is_open = is_opened(prompt, tags)
    if is_open or not prompt.rstrip().endswith(tags.closing):
        return Thoughts(tags, is_open)
    return None


def control_id(model: ServedModel, text: str) -> int | None:
    """Returns the control token that `text` is, None if it is ordinary text."""
    ids = model.tokenizer.encode(text, parse_special=True)
    if len(ids) != 1:
        return None
    shown = model.tokenizer.decoder(skip_special=True).push(ids)
    return ids[0] if not shown else None
