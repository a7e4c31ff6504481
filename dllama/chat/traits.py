"""The traits of a chat template (what it can read), found by rendering small conversations with
it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dllama.chat.compiled import CompiledTemplate, Message
from dllama.errors import TemplateError

_SYSTEM = "Qsystemtext"
_USER = "Qusertext"
_RESULT = "qresulttext"
_THOUGHTS = "qthoughtstext"
_KEY, _VALUE = "qkey", "qvalue"
_CALL_ID = "abcdef123"  # nine letters and digits, which Mistral's templates insist on
PROBE_TOOL: dict[str, object] = {
    "type": "function",
    "function": {
        "name": "qtool",
        "description": "A tool.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "A key."}},
            "required": [_KEY],
        },
    },
}
_AS_TEXT = f'{{"{_KEY}": "{_VALUE}"}}'
_AS_OBJECT = {_KEY: _VALUE}


class Arguments(StrEnum):
    """The form in which a template wants the arguments of a tool call."""

    TEXT = "text"
    OBJECT = "object"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Traits:
    """The traits of a template. The defaults are those of a template that takes whatever is
    sent."""

    has_system: bool = True
    takes_parts: bool = False  # content as a list of {"type": "text", ...}
    wants_parts: bool = False  # content as such a list only
    takes_null: bool = True  # content None beside tool calls
    arguments: Arguments = Arguments.ANY
    writes_calls: bool = False  # calls of tools, and their results
    takes_many_calls: bool = True  # in one message
    takes_words: bool = True  # beside thoughts, in a message with calls


def find_traits(template: CompiledTemplate) -> Traits:
    """The traits of a template; the defaults where it renders nothing we can think of."""
    probe = _Probe(template)
    if not probe.works:
        return Traits()
    arguments = probe.arguments()
    return Traits(
        has_system=_SYSTEM in probe.text(_system_and_user()),
        takes_parts=probe.takes_parts(),
        wants_parts=probe.takes_parts() and _USER not in probe.text([_user(_USER)]),
        takes_null=probe.takes_null(arguments),
        arguments=arguments,
        writes_calls=probe.writes_calls(arguments),
        takes_many_calls=probe.takes_many_calls(arguments),
        takes_words=probe.takes_words(arguments),
    )


class _Probe:
    """Renders conversations; one that fails gives the empty text."""

    def __init__(self, template: CompiledTemplate) -> None:
        self._template = template
        self._tools: list[dict[str, object]] | None = None
        user = [_user(_USER)]
        parts = [_user(_parts(_USER))]
        self.works = bool(self.text(user) or self.text(parts))
        if not self.works:
            self._tools = [PROBE_TOOL]  # some templates are for conversations with tools only
            self.works = bool(self.text(user) or self.text(parts))

    def text(self, messages: Sequence[Message]) -> str:
        try:
            return self._template.render(messages, self._tools, False, {})
        except TemplateError:
            return ""

    def takes_parts(self) -> bool:
        text = self.text([_user(_parts(_USER))])
        return _USER in text and "'type'" not in text and '"type"' not in text

    def arguments(self) -> Arguments:
        """A template that writes a text as JSON gives quotes within quotes; one that writes an
        object as it is gives Python's single quotes."""
        as_text = self._with_call(_AS_TEXT)
        as_object = self._with_call(_AS_OBJECT)
        text_is_fine = _AS_TEXT in as_text
        object_is_fine = _VALUE in as_object and f"'{_KEY}'" not in as_object
        if object_is_fine and not text_is_fine:
            return Arguments.OBJECT
        if text_is_fine and not object_is_fine:
            return Arguments.TEXT
        return Arguments.ANY

    def takes_null(self, arguments: Arguments) -> bool:
        form: object = _AS_TEXT if arguments is Arguments.TEXT else _AS_OBJECT
        null, empty = self.text(_call(form, None)), self.text(_call(form, ""))
        return bool(null) and null.count("None") <= empty.count("None")

    def writes_calls(self, arguments: Arguments) -> bool:
        form: object = _AS_TEXT if arguments is Arguments.TEXT else _AS_OBJECT
        result = {"role": "tool", "tool_call_id": _CALL_ID, "content": _RESULT}
        text = self.text([*_call(form, None), result])
        return _VALUE in text and _RESULT in text

    def takes_many_calls(self, arguments: Arguments) -> bool:
        """False for a template that writes one call of a message, and drops or refuses others."""
        form: object = _AS_TEXT if arguments is Arguments.TEXT else _AS_OBJECT
        one, two = (_call(form, "", n_calls=n) for n in (1, 2))
        n_one, n_two = (self.text(messages).count(_VALUE) for messages in (one, two))
        return n_two > n_one or not n_one

    def takes_words(self, arguments: Arguments) -> bool:
        form: object = _AS_TEXT if arguments is Arguments.TEXT else _AS_OBJECT
        both, thoughts = (_call(form, text, thoughts=_THOUGHTS) for text in (_USER, ""))
        return bool(self.text(both)) or not self.text(thoughts)

    def _with_call(self, arguments: object) -> str:
        """A tool call, rendered; templates differ in what content they want beside one."""
        found = self.text(_call(arguments, None))
        return found if _VALUE in found else self.text(_call(arguments, ""))


def _system_and_user() -> list[Message]:
    return [{"role": "system", "content": _SYSTEM}, _user(_USER)]


def _user(content: object) -> Message:
    return {"role": "user", "content": content}


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _call(
    arguments: object, content: str | None, *, n_calls: int = 1, thoughts: str = ""
) -> list[Message]:
    function = {"name": "qtool", "arguments": arguments}
    call = {"id": _CALL_ID, "type": "function", "function": function}
    message = {"role": "assistant", "content": content, "tool_calls": [call] * n_calls}
    if thoughts:
        message |= {"thinking": thoughts, "reasoning_content": thoughts}
    return [_user(_USER), message]
