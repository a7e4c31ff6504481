"""Conversations to prompts, by the Jinja template that a model was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property

from dllama.chat.adaptations import adapt
from dllama.chat.compiled import CompiledTemplate
from dllama.chat.traits import Traits, find_traits

Tools = Sequence[Mapping[str, object]]


class ChatTemplate:
    """A chat template, compiled once; safe to use from several threads at once.

    `tool_source` is another template for conversations with tools, where a model has one.
    `sources` are both, the one for tools first. `now` is what the template's `strftime_now`
    tells. Raises TemplateError for bad Jinja.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        name: str = "the model's own",
        tool_source: str | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.source = source
        self.name = name
        self.sources = (source,) if tool_source is None else (tool_source, source)
        self._plain = CompiledTemplate(
            source, bos_token=bos_token, eos_token=eos_token, name=name, now=now
        )
        self._with_tools = self._plain
        if tool_source is not None:
            self._with_tools = CompiledTemplate(
                tool_source,
                bos_token=bos_token,
                eos_token=eos_token,
                name=f"{name}, for tools",
                now=now,
            )

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Tools | None = None,
        add_generation_prompt: bool = True,
        **kwargs: object,
    ) -> str:
        """The prompt of a conversation that `check_messages` has passed.

        `kwargs` are further variables of the template: enable_thinking, date_string, documents.
        Raises TemplateError where the template refuses the messages or fails on them.
        """
        template, traits = (
            (self._with_tools, self._tool_traits) if tools else (self._plain, self._plain_traits)
        )
        return template.render(
            adapt(messages, traits), list(tools) if tools else None, add_generation_prompt, kwargs
        )

    @cached_property
    def _plain_traits(self) -> Traits:
        return find_traits(self._plain)

    @cached_property
    def _tool_traits(self) -> Traits:
        if self._with_tools is self._plain:
            return self._plain_traits
        return find_traits(self._with_tools)
