"""The fields about a model's thoughts: whether it thinks, how much, and where the thoughts go."""

from __future__ import annotations

from collections.abc import Mapping

from api.answers.reasoning import ReasoningFormat
from api.requests.fields import Field, boolean, mapping, wrong
from dllama.errors import RequestError

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

# Arguments that a chat template's caller sets itself.
RESERVED_KWARGS = frozenset({"self", "messages", "tools", "add_generation_prompt"})


def template_kwargs(value: object, name: str) -> dict[str, object]:
    """Reads arguments for the chat template, except those that the server sets."""
    kwargs = mapping(value, name)
    for key in kwargs:
        if key in RESERVED_KWARGS:
            raise RequestError(f"`{name}` may not set `{key}`; leave it out.", param=name)
    if "enable_thinking" in kwargs:  # "false" would be true for a template
        boolean(kwargs["enable_thinking"], f"{name}.enable_thinking")
    return kwargs


def reasoning_format(value: object, name: str) -> ReasoningFormat:
    if value not in list(ReasoningFormat):
        raise wrong(name, f"one of {', '.join(ReasoningFormat)}", value)
    return ReasoningFormat(str(value))


def effort(value: object, name: str) -> str:
    if value not in _EFFORTS:
        raise wrong(name, f"one of {', '.join(_EFFORTS)}", value)
    return str(value)


TEMPLATE_KWARGS: Field[dict[str, object], dict[str, object]] = Field(
    ("chat_template_kwargs",), template_kwargs, {}
)
ENABLE_THINKING = Field(("enable_thinking",), boolean, None)
REASONING_FORMAT = Field(("reasoning_format",), reasoning_format, ReasoningFormat.AUTO)
REASONING_EFFORT = Field(("reasoning_effort",), effort, None)

THINKING: tuple[Field[object, object], ...] = (
    TEMPLATE_KWARGS, ENABLE_THINKING, REASONING_FORMAT, REASONING_EFFORT,
)  # fmt: skip


def thinking_kwargs(
    kwargs: Mapping[str, object],
    enabled: bool | None,
    strength: str | None,
    effort_name: str = "reasoning_effort",
) -> dict[str, object]:
    """The variables of the chat template: `kwargs`, with `enable_thinking` and `reasoning_effort`
    as other fields of the request say. Raises RequestError if two of them disagree."""
    kwargs = dict(kwargs)
    if strength == "none":
        if enabled:
            raise _disagree(effort_name)
        enabled = False
    elif strength is not None and kwargs.setdefault("reasoning_effort", strength) != strength:
        raise _disagree(effort_name)
    if enabled is not None and kwargs.setdefault("enable_thinking", enabled) != enabled:
        raise _disagree("enable_thinking")
    return kwargs


def _disagree(name: str) -> RequestError:
    return RequestError(
        f"`{name}` and another field say different things about thinking; send one of them.",
        param=name,
    )
