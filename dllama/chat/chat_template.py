"""Conversations to prompts, by the Jinja template that a model was trained with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property

from dllama.chat.adaptations import Messages, adapt
from dllama.chat.compiled import CompiledTemplate
from dllama.chat.continuation import CUTS, Cut, joined_parts
from dllama.chat.traits import Traits, find_traits

Tools = Sequence[Mapping[str, object]]


class ChatTemplate:
    """A chat template, compiled once; safe to use from several threads at once.

    `tool_source` is another template for conversations with tools, where a model has one.
    `sources` are both, the one for tools first. `now` is what `strftime_now` and the
    variables of the date tell. Raises TemplateError for bad Jinja.
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
        Those of `CompiledTemplate` hold where they say nothing.
        Raises TemplateError where the template refuses the messages or fails on them.
        """
        template, traits = self._for(tools)
        return template.render(
            adapt(messages, traits), list(tools) if tools else None, add_generation_prompt, kwargs
        )

    def render_up_to(
        self,
        cut: Cut,
        messages: Sequence[Mapping[str, object]],
        tools: Tools | None = None,
        /,  # a variable of the template may be called `cut`
        **kwargs: object,
    ) -> str | None:
        """The prompt that ends within the last message, where `cut` says; None if the template
        does not write that part of it. Raises TemplateError as `render` does."""
        template, traits = self._for(tools)

        def render(adapted: Messages) -> str:
            return template.render(adapted, list(tools) if tools else None, False, kwargs)

        *before, last = messages
        if not traits.takes_parts:
            last = {**last, "content": joined_parts(last.get("content"))}
        return CUTS[cut](render, adapt([*before, last], traits))

    @property
    def writes_calls(self) -> bool:
        """Whether the template writes a history's tool calls and their results, if it is told of no
        tools."""
        return self._plain_traits.writes_calls

    def _for(self, tools: Tools | None) -> tuple[CompiledTemplate, Traits]:
        """The template of conversations with these tools, and its traits."""
        if tools:
            return self._with_tools, self._tool_traits
        return self._plain, self._plain_traits

    @cached_property
    def _plain_traits(self) -> Traits:
        return find_traits(self._plain)

    @cached_property
    def _tool_traits(self) -> Traits:
        if self._with_tools is self._plain:
            return self._plain_traits
        return find_traits(self._with_tools)
