"""The grammar of an answer in Harmony (harmony.py): thoughts and words before a call as they come,
then a call of a function that is offered, or the final text, which may have a form."""

from __future__ import annotations

from api.tools.harmony import (
    ANALYSIS,
    ASSISTANT,
    CHANNEL,
    COMMENTARY,
    CONSTRAIN,
    END,
    FINAL,
    FUNCTIONS,
    MESSAGE,
    START,
    Header,
    Opening,
)
from api.tools.lark_lines import LarkLines, Marks
from api.tools.tool_request import ToolRequest
from dllama.constraints.compile import grammar_text
from dllama.constraints.grammars import Part


def channel_grammar(
    *, form: Part | None, tools: ToolRequest, opening: Opening, marks: Marks
) -> str | None:
    """Returns the grammar for an engine, None if any text will do."""
    if form is None and not tools.offered:
        return None
    rules = _ChannelRules(marks)
    parts: list[dict[str, object]] = []
    if tools.offered:
        rules.add_calls([tool.name for tool in tools.offered])
        parts += [part.named(f"args_{i}") for i, part in enumerate(tools.grammars())]
    if form is not None:
        parts.append(form.named("answer"))
    text = "ANY" if form is None else "@answer"
    rules.add_final(text)
    ends = [] if tools.is_required else ["final"]
    ends += ["call"] if tools.offered else []
    start = f"before* ({' | '.join(ends)})"
    if opening.is_in_text:
        goes_on = f"said {start}"
        is_final = Header.of(opening.header).channel == FINAL
        start = text if is_final and not tools.is_required else goes_on
    rules.lines.insert(0, f"start: {start}")
    return grammar_text({"lark_grammar": "\n".join(rules.lines) + "\n"}, *parts)


class _ChannelRules(LarkLines):
    """The lines of one Lark grammar. Each message begins in the header, after who speaks."""

    def __init__(self, marks: Marks) -> None:
        super().__init__(marks)
        self._channel, self._message = self.literal(CHANNEL), self.literal(MESSAGE)
        self.up_to("to_end", END)
        self.lines.append(f"said: to_end {self.literal(START)} {self.literal(ASSISTANT)}")
        channels = f"({self.literal(ANALYSIS)} | {self.literal(COMMENTARY)})"
        self.lines.append(f"before: {self._channel} {channels} {self._message} said")

    def add_final(self, text: str) -> None:
        """Adds `final`, the last message."""
        kind = rf'" "? {self.literal(CONSTRAIN)} /[A-Za-z_]{{1,16}}/'
        head = f"{self._channel} {self.literal(FINAL)} ({kind})?"
        self.lines.append(f"final: {head} {self._message} {text}")

    def add_calls(self, names: list[str]) -> None:
        """Adds `call`. The function stands before the channel or after it."""
        channel = f"{self._channel} {self.literal(COMMENTARY)}"
        kind = f'" "? {self.literal(CONSTRAIN)}? "json"?'
        for i, name in enumerate(names):
            to = self.literal(f" to={FUNCTIONS}{name}")
            heads = f"({channel} {to} | {to} {channel})"
            self.lines.append(f"call_{i}: {heads} {kind} {self._message} @args_{i}")
        self.lines.append(f"call: {' | '.join(f'call_{i}' for i in range(len(names)))}")
