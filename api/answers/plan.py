"""How an answer to one prompt is held to a form, and how its text is read: the grammar for the
engine, the control tokens that count as text, the lines it may have, thoughts and tool calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.answers.message_reader import MessageReader, TaggedReader
from api.answers.reasoning import ReasoningFormat, ReasoningSplitter, ThinkTags, is_opened
from api.answers.stop import LineRules, StopScanner
from api.requests.answer_format import AnswerFormat
from api.requests.prompts.continuation import is_within_thoughts
from api.requests.prompts.conversation import Conversation
from api.served_model import ServedModel
from api.tools.call_grammar import Thoughts, answer_grammar
from api.tools.call_reader import CallReader
from api.tools.channel_grammar import channel_grammar
from api.tools.channel_reader import ChannelReader
from api.tools.dialects import GENERIC, ToolDialect
from api.tools.harmony import MARKS, Opening, opening_of
from api.tools.lark_lines import Marks
from api.tools.pythonic_reader import PythonicReader
from api.tools.tagged_reader import TaggedCallReader
from api.tools.tool_request import Tool
from dllama.constraints.grammars import whole_answer


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
    tools: tuple[Tool, ...] = ()
    dialect: ToolDialect = field(default=GENERIC)
    tells_usage: bool = False
    n_indent: int = 0
    max_line_s: float | None = None
    is_silent: bool = False  # nothing is said: the prompt is only read
    opening: Opening | None = None  # of an answer in channels
    shows_marks: bool = False  # its thoughts are text, with their marks

    def reader(self, index: int, stops: StopScanner) -> MessageReader | None:
        """Returns a reader for the choice `index`, None if the text is the whole answer."""
        if self.opening is not None:
            names = [tool.name for tool in self.tools]
            channels = ChannelReader(
                self.dialect, names, index, self.opening, shows_marks=self.shows_marks
            )
            return MessageReader(index, channels, stops)
        dialect = self.dialect
        is_marked = bool(self.tags or self.tools or dialect.text_opening or dialect.has_citations)
        if not self.is_message or not is_marked:
            return None
        splitter = None
        if self.tags:
            splitter = ReasoningSplitter(self.tags, is_open=self.is_open, is_begun=self.is_begun)
        calls = self._call_reader(index) if self.tools else None
        parts = TaggedReader(
            index, splitter, calls,
            text_opening=dialect.text_opening, has_citations=dialect.has_citations,
        )  # fmt: skip
        return MessageReader(index, parts, stops)

    def _call_reader(self, index: int) -> CallReader:
        if self.dialect.has_tags:
            schemas = {tool.name: tool.schema for tool in self.tools}
            return TaggedCallReader(self.dialect, schemas, index)
        reader = PythonicReader if self.dialect.is_pythonic else CallReader
        return reader(self.dialect, [tool.name for tool in self.tools], index)

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
    if model.tool_dialect.has_channels:
        return _channel_plan(model, conversation, form, prompt)
    tags, tools, dialect = model.think_tags, conversation.tools, model.tool_dialect
    thoughts = None if tags is None else thoughts_ahead(conversation, prompt, tags)
    grammar = answer_grammar(
        form=None if form is None else form.part,
        tools=tools,
        dialect=dialect,
        thoughts=thoughts,
        marks=marks_of(model),
    )
    asked = conversation.reasoning
    told = model.reasoning if asked is ReasoningFormat.AUTO else asked
    is_split = thoughts is not None and told is not ReasoningFormat.NONE
    shown = list(dialect.marks) if tools.offered else []
    if thoughts is not None:
        shown += [thoughts.tags.opening, thoughts.tags.closing]
    kept = (control_id(model, mark) for mark in shown)
    return AnswerPlan(
        grammar=grammar,
        kept=frozenset(token for token in kept if token is not None),
        is_message=True,
        tags=thoughts.tags if thoughts is not None and is_split else None,
        is_open=thoughts is not None and thoughts.is_open,
        is_begun=thoughts is not None and conversation.is_continued,
        tools=tools.offered,
        dialect=dialect,
    )


def _channel_plan(
    model: ServedModel, conversation: Conversation, form: AnswerFormat | None, prompt: str
) -> AnswerPlan:
    """Returns the plan of a message in Harmony."""
    tools, opening = conversation.tools, opening_of(prompt)
    grammar = channel_grammar(
        form=None if form is None else form.part,
        tools=tools,
        opening=opening,
        marks=marks_of(model),
    )
    asked = conversation.reasoning
    told = model.reasoning if asked is ReasoningFormat.AUTO else asked
    kept = (control_id(model, mark) for mark in MARKS)
    return AnswerPlan(
        grammar=grammar,
        kept=frozenset(token for token in kept if token is not None),
        is_message=True,
        tools=tools.offered,
        dialect=model.tool_dialect,
        opening=opening,
        shows_marks=told is ReasoningFormat.NONE,
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


def marks_of(model: ServedModel) -> Marks:
    """Returns what marks are in the model's vocabulary."""
    return Marks(lambda text: control_id(model, text), lambda text: special_id(model, text))


def special_id(model: ServedModel, text: str) -> int | None:
    """Returns the special token that `text` is, None if it is ordinary text."""
    token = _only_token(model, text)
    return token if token is not None and model.tokenizer.is_special(token) else None


def control_id(model: ServedModel, text: str) -> int | None:
    """Returns the control token that `text` is, None if it is ordinary text."""
    token = _only_token(model, text)
    if token is None or model.tokenizer.decoder(skip_special=True).push([token]):
        return None
    return token


def _only_token(model: ServedModel, text: str) -> int | None:
    """Returns the token that a text is as a whole, None where it is several or none."""
    ids = model.tokenizer.encode(text, parse_special=True)
    return ids[0] if len(ids) == 1 else None
