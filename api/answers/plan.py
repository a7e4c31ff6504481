"""How an answer to one prompt is held to a form, and how it is read: the grammar for the engine,
the control tokens that count as text, and the readers."""

from __future__ import annotations

from dataclasses import dataclass, field

from api.answers.message_reader import MessageReader
from api.answers.reasoning import ReasoningFormat, ReasoningSplitter, ThinkTags, is_opened
from api.requests.answer_format import Shape
from api.requests.generation import Conversation
from api.served_model import ServedModel
from api.tools.call_grammar import Thoughts, answer_grammar
from api.tools.call_reader import CallReader
from api.tools.dialects import GENERIC, ToolDialect
from dllama.constraints.grammars import whole_answer


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """`kept` are control tokens that the text is to show, because a reader looks for them."""

    grammar: str | None = None
    kept: frozenset[int] = frozenset()
    is_message: bool = False
    tags: ThinkTags | None = None  # of thoughts that are split off
    is_open: bool = False  # the prompt has begun them
    tool_names: tuple[str, ...] = ()
    dialect: ToolDialect = field(default=GENERIC)

    def reader(self) -> MessageReader | None:
        """A reader for one sequence; None where the text is the whole answer."""
        if not self.is_message or (self.tags is None and not self.tool_names):
            return None
        splitter = ReasoningSplitter(self.tags, is_open=self.is_open) if self.tags else None
        calls = CallReader(self.dialect, self.tool_names) if self.tool_names else None
        return MessageReader(splitter, calls, self.dialect)


PLAIN = AnswerPlan()  # any text


def text_plan(shape: Shape | None) -> AnswerPlan:
    """The plan of a text completion."""
    return PLAIN if shape is None else AnswerPlan(whole_answer(shape.part))


def chat_plan(
    model: ServedModel, conversation: Conversation, shape: Shape | None, prompt: str
) -> AnswerPlan:
    """The plan of the next message after `prompt`, which the conversation was rendered to."""
    tags, tools, dialect = model.think_tags, conversation.tools, model.tool_dialect
    thoughts = None
    if tags is not None and not conversation.is_continued:
        is_open = is_opened(prompt, tags)
        if is_open or not prompt.rstrip().endswith(tags.closing):  # closed: it must not think
            thoughts = Thoughts(tags, is_open)
    grammar = answer_grammar(
        shape=None if shape is None else shape.part,
        tools=tools,
        dialect=dialect,
        thoughts=thoughts,
        control_id=lambda text: control_id(model, text),
    )
    is_split = thoughts is not None and conversation.reasoning is not ReasoningFormat.NONE
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
        tool_names=tuple(tool.name for tool in tools.offered),
        dialect=dialect,
    )


def control_id(model: ServedModel, text: str) -> int | None:
    """The control token that `text` is, None where it is ordinary text."""
    ids = model.tokenizer.encode(text, parse_special=True)
    if len(ids) != 1:
        return None
    shown = model.tokenizer.decoder(skip_special=True).push(ids)
    return ids[0] if not shown else None
