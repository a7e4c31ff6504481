"""What a request says of a model's thoughts: whether there are to be any, and where they go."""

from __future__ import annotations

from api.answers.reasoning import ReasoningFormat
from api.requests.fields import Body, Field, boolean, template_kwargs, wrong
from dllama.errors import RequestError

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


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


def parse_kwargs(body: Body) -> dict[str, object]:
    """The variables of the chat template; `enable_thinking` and `reasoning_effort` are among them
    however they were sent. RequestError where two of them disagree."""
    kwargs = dict(TEMPLATE_KWARGS.of(body))
    wanted, strength = ENABLE_THINKING.of(body), REASONING_EFFORT.of(body)
    if strength == "none":
        if wanted:
            raise _disagree("reasoning_effort")
        wanted = False
    elif strength is not None and kwargs.setdefault("reasoning_effort", strength) != strength:
        raise _disagree("reasoning_effort")
    if wanted is not None and kwargs.setdefault("enable_thinking", wanted) != wanted:
        raise _disagree("enable_thinking")
    return kwargs


def _disagree(name: str) -> RequestError:
    return RequestError(
        f"`{name}` and another field say different things about thinking; send one of them.",
        param=name,
    )
