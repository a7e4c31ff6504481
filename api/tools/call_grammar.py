"""The grammar of an answer: thoughts first if the model has any, then text, calls, or the form that
the request asks for. Written in Lark, as llguidance reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.answers.reasoning import ThinkTags
from api.tools.dialects import NAME, NUMBER, ToolDialect
from api.tools.lark_lines import ANY, LarkLines, Marks
from api.tools.pythonic_grammar import add_pythonic_calls
from api.tools.tagged_grammar import add_tagged_calls
from api.tools.tool_request import ToolRequest
from dllama.constraints.compile import grammar_text
from dllama.constraints.grammars import Part


@dataclass(frozen=True, slots=True)
class Thoughts:
    """`is_open`: the prompt has begun them; otherwise an answer may."""

    tags: ThinkTags
    is_open: bool


def answer_grammar(
    *,
    form: Part | None,
    tools: ToolRequest,
    dialect: ToolDialect,
    thoughts: Thoughts | None,
    marks: Marks,
) -> str | None:
    """Returns the grammar for an engine, None if any text will do."""
    if form is None and not tools.offered:
        return None
    rules = _Rules(marks)
    begin = rules.thoughts(thoughts)
    frame = f"({rules.literal(dialect.text_opening)})? " if dialect.text_opening else ""
    parts: list[dict[str, object]] = []
    if tools.offered:
        parts += rules.add_calls(dialect, tools)
    if form is not None:
        parts.append(form.named("answer"))
    if tools.is_required:
        options = ["calls"]
    elif form is not None:
        options = [f"{frame}@answer", *(["calls"] if tools.offered else [])]
    else:
        options = [f"{frame}{text}" for text in rules.add_free_text(dialect, tools)]
    rules.lines.insert(0, f"start: {begin}({' | '.join(options)})")
    return grammar_text({"lark_grammar": "\n".join(rules.lines) + "\n"}, *parts)


class _Rules(LarkLines):
    """The lines of one Lark grammar."""

    def thoughts(self, thoughts: Thoughts | None) -> str:
        """Returns the beginning of `start`, and adds its rules."""
        if thoughts is None:
            return ""
        self.up_to("thoughts_end", thoughts.tags.closing)
        lead = f"({self.literal(thoughts.tags.lead)})? " if thoughts.tags.lead else ""
        opening = "" if thoughts.is_open else f"{lead}{self.literal(thoughts.tags.opening)} "
        self.lines.append(f"thoughts: {opening}thoughts_end space")
        self.lines.append(r"space: /[ \n]{0,4}/")
        return "thoughts " if thoughts.is_open else "thoughts? "

    def add_calls(self, dialect: ToolDialect, tools: ToolRequest) -> list[dict[str, object]]:
        """Adds `calls`, all of an answer's calls, and `marked_calls`, what follows the mark of the
        first. Returns the grammars that they refer to."""
        literal, lines = self.frame, self.lines
        names = [tool.name for tool in tools.offered]
        parts = self._add_each_call(dialect, names, tools.grammars())
        lines.append(f"one: {' | '.join(f'call_{i}' for i in range(len(names)))}")
        one = f"{literal(dialect.before)} one {literal(dialect.after)}"
        is_parallel = tools.is_parallel and not dialect.is_single
        more = f"({literal(dialect.between)} {one})*" if is_parallel else ""
        opening, closing = dialect.opening, dialect.closing
        if dialect.is_bare:
            opening, closing = dialect.bare_opening, dialect.bare_closing
        first = f"{literal(opening)} {one}"
        if dialect.is_pythonic:
            first = f"bare_call {literal(dialect.after)}"
        lines.append(f"calls: {first} {more} {literal(closing)}".rstrip())
        whole = dialect.opening + dialect.before
        assert whole.startswith(dialect.mark), "a dialect's calls begin with its mark"
        rest = literal(whole[len(dialect.mark) :])
        lines.append(
            f"marked_calls: {rest} one {literal(dialect.after)} {more} {literal(dialect.closing)}"
        )
        return parts

    def _add_each_call(
        self, dialect: ToolDialect, names: Sequence[str], arguments: Sequence[Part]
    ) -> list[dict[str, object]]:
        """Adds a rule `call_{i}` of each function; returns the grammars that they refer to."""
        if dialect.has_tags:
            return add_tagged_calls(self, names, arguments)
        if dialect.is_pythonic:
            return add_pythonic_calls(self, dialect.bare_opening, names, arguments)
        if NUMBER in dialect.frame:
            self.lines.append("NUMBER: /[0-9]{1,9}/")
        for i, name in enumerate(names):
            head = self._head(dialect, name)
            self.lines.append(f"call_{i}: {head} @args_{i} {self.frame(dialect.tail)}".rstrip())
        return [part.named(f"args_{i}") for i, part in enumerate(arguments)]

    def _head(self, dialect: ToolDialect, name: str) -> str:
        if NUMBER not in dialect.frame:
            return self.frame(dialect.head(name))
        before, _, after = dialect.frame.replace(NAME, name).partition(NUMBER)
        return f"{self.frame(before)} NUMBER {self.frame(after)}"

    def add_free_text(self, dialect: ToolDialect, tools: ToolRequest) -> list[str]:
        """Returns the alternatives of `start`: text without calls, or with calls at its end."""
        text = "ANY"
        if dialect.is_bare:
            names = "|".join(_regex_text(tool.name) for tool in tools.offered)
            call = rf'\{{\s*"name"\s*:\s*"({names})"'
            if dialect.is_pythonic:
                call = rf"\[\s*({names})\s*\("
            self.lines.append(rf"TEXT: {ANY} & ~/\s*{call}(.|\n)*/")
            text = "TEXT"
        self.up_to("text_and_mark", dialect.mark, text)
        options = [text, "text_and_mark marked_calls"]
        return [*options, "calls"] if dialect.is_bare else options


def _regex_text(text: str) -> str:
    return re.sub(r"([^A-Za-z0-9_])", r"\\\1", text)
