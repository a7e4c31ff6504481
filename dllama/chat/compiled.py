"""One Jinja source, compiled, with the texts that every rendering of it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from traceback import extract_tb

import jinja2

from dllama.chat.environment import ChatEnvironment, Refusal
from dllama.errors import TemplateError

Message = Mapping[str, object]


class CompiledTemplate:
    """Renders messages as they are. Raises TemplateError for all that can go wrong."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str,
        eos_token: str,
        name: str,
        now: Callable[[], datetime],
    ) -> None:
        self.name = name
        self._given = {"bos_token": bos_token, "eos_token": eos_token}
        self._now = now
        try:
            self._template = ChatEnvironment(now).compile_counted(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"The chat template ({name}) is no valid Jinja: {error.message}, line "
                f"{error.lineno}. Correct it, or choose another one with --chat-template."
            ) from error
        except (RecursionError, MemoryError, ValueError, TypeError) as error:
            raise TemplateError(
                f"The chat template ({name}) cannot be compiled: {error or type(error).__name__}. "
                f"Choose another one with --chat-template."
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None,
        add_generation_prompt: bool,
        more: Mapping[str, object],
    ) -> str:
        """The prompt. `more` are variables that callers choose, such as enable_thinking."""
        variables = {
            **self._given,
            **self._always(tools),
            **self._thinking(more),
            **more,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._template.render(variables)
        except Refusal as error:
            raise TemplateError(
                f"The model's chat template ({self.name}) refuses these messages: "
                f"{_sentence(error)}"
            ) from error
        except Exception as error:  # a template is a program: anything may go wrong in it
            raise TemplateError(
                f"The chat template ({self.name}) fails on these messages{_place(error)}: "
                f"{_sentence(error)} Change the messages, or choose another template with "
                f"--chat-template."
            ) from error

    def _always(self, tools: Sequence[Mapping[str, object]] | None) -> dict[str, object]:
        """The variables that a template finds whoever calls: transformers' `documents`, and those
        of llama-server. Models whose templates read them were trained with them."""
        now = self._now()
        found: dict[str, object] = {
            "documents": None,
            "enable_thinking": True,
            "date_string": now.strftime("%d %b %Y"),
            "datetime": now.strftime("%b %d %Y"),
        }
        if "functions" in self._template.names:  # written only for those that read it
            found["functions"] = json.dumps(tools, ensure_ascii=False, indent=2) if tools else ""
        return found

    def _thinking(self, more: Mapping[str, object]) -> dict[str, object]:
        """Returns `enable_thinking`, where a caller says it, under the name that the templates of
        Cohere's models have for it."""
        is_said = "enable_thinking" in more and "reasoning" in self._template.names
        return {"reasoning": more["enable_thinking"]} if is_said else {}


def _sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


def _place(error: Exception) -> str:
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if "<template>" in frame[0]]
    return f" in line {lines[-1]}" if lines else ""
