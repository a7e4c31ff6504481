"""Bodies of OpenAI's /v1/chat/completions and /v1/completions, once checked."""

from __future__ import annotations

from collections.abc import Sequence

from api.requests.conversation import (
    ENABLE_THINKING,
    REASONING_EFFORT,
    REASONING_FORMAT,
    TEMPLATE_KWARGS,
    THINKING,
    ChatRequest,
    Conversation,
    TemplateMessage,
    continuation,
    ending_in,
    is_continued,
    thinking_kwargs,
)
from api.requests.fields import MAX_INT, Body, Field, boolean, check_fields, integer, wrong
from api.requests.generation import GENERATION, MAX_N, GenerationRequest, parse_generation
from api.requests.sampling import (
    CHAT_LOGPROBS,
    TEXT_LOGPROBS,
    TOP_LOGPROBS,
    told_of_chat,
    told_of_text,
)
from api.tools.tool_request import (
    MAX_TOOLS,
    NamedFunction,
    Tool,
    ToolChoice,
    choose_tools,
    in_their_envelopes,
    make_tools,
)
from dllama.errors import RequestError

Prompt = str | list[int]


def messages_list(value: object, name: str) -> list[TemplateMessage]:
    """A list of objects; what the objects must hold is dllama.chat's to say."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(name, 'a list of messages like {"role": "user", "content": "Hello"}', value)
    return value


def token_ids(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise wrong(name, "a list of token ids", value)
    return value


def prompts(value: object, name: str) -> list[Prompt]:
    """One prompt or a list of them, each a string or a list of token ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        found: list[Prompt] = []
        for i, item in enumerate(value):
            found.append(item if isinstance(item, str) else token_ids(item, f"{name}[{i}]"))
        return found
    raise wrong(name, "a string, a list of strings, a list of token ids or a list of those", value)


def tools(value: object, name: str) -> tuple[Tool, ...]:
    """A list of functions."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise wrong(name, f"a list of at most {MAX_TOOLS} tools", value)
    functions = []
    for i, tool in enumerate(value):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            wanted = 'an object like {"type": "function", "function": {...}}'
            raise wrong(f"{name}[{i}]", wanted, tool)
        function = tool.get("function")
        if not isinstance(function, dict):
            wanted = "an object with `name` and `parameters`"
            raise wrong(f"{name}[{i}].function", wanted, function)
        functions.append(function)
    found = make_tools(functions, [f"{name}[{i}].function" for i in range(len(functions))])
    return in_their_envelopes(found, value)


def tool_choice(value: object, name: str) -> ToolChoice:
    """A word, or {"type": "function", "function": {"name": ...}}."""
    if value == "auto" or value == "none" or value == "required":
        return value
    function = value.get("function") if isinstance(value, dict) else None
    wanted = function.get("name") if isinstance(function, dict) else None
    if not isinstance(wanted, str):
        raise wrong(name, "auto, none, required or a function like "
                    '{"type": "function", "function": {"name": "f"}}', value)  # fmt: skip
    return NamedFunction(wanted)


MAX_TOKENS = Field(("max_tokens", "max_completion_tokens"), integer(1, MAX_INT), None)
N = Field(("n",), integer(1, MAX_N), 1)
BEST_OF = Field(("best_of",), integer(1, MAX_N), None)
PROMPT = Field(("prompt",), prompts, None)
MESSAGES = Field(("messages",), messages_list, None)
ADD_GENERATION_PROMPT = Field(("add_generation_prompt",), boolean, None)
CONTINUE_FINAL_MESSAGE = Field(("continue_final_message",), continuation, None)
TOOLS: Field[tuple[Tool, ...], tuple[Tool, ...]] = Field(("tools",), tools, ())
TOOL_CHOICE: Field[ToolChoice, ToolChoice] = Field(("tool_choice",), tool_choice, "auto")
PARALLEL = Field(("parallel_tool_calls",), boolean, True)

TEMPLATE: tuple[Field[object, object], ...] = (
    MESSAGES, ADD_GENERATION_PROMPT, CONTINUE_FINAL_MESSAGE, *THINKING, TOOLS, TOOL_CHOICE,
    PARALLEL,
)  # fmt: skip
CHAT: Sequence[Field[object, object]] = (
    *GENERATION, MAX_TOKENS, N, *TEMPLATE, CHAT_LOGPROBS, TOP_LOGPROBS,
)  # fmt: skip
COMPLETION: Sequence[Field[object, object]] = (
    *GENERATION, MAX_TOKENS, N, PROMPT, BEST_OF, TEXT_LOGPROBS,
)  # fmt: skip


def parse_conversation(body: Body) -> Conversation:
    """The messages of a body, and how they are to be rendered. Raises RequestError."""
    messages = MESSAGES.of(body)
    if not messages:
        raise RequestError(
            "`messages` is missing or empty; send at least one message, like "
            '{"role": "user", "content": "Hello"}.',
            param="messages",
        )
    add, part = ADD_GENERATION_PROMPT.of(body), CONTINUE_FINAL_MESSAGE.of(body)
    messages = ending_in(messages, part)
    continued = None if part is None else bool(part)
    return Conversation(
        messages,
        is_continued=is_continued(messages, add, continued),
        kwargs=thinking_kwargs(
            TEMPLATE_KWARGS.of(body), ENABLE_THINKING.of(body), REASONING_EFFORT.of(body)
        ),
        add_generation_prompt=add is not False,
        tools=choose_tools(TOOLS.of(body), TOOL_CHOICE.of(body), is_parallel=PARALLEL.of(body)),
        reasoning=REASONING_FORMAT.of(body),
    )


def parse_chat(body: Body, route: str) -> ChatRequest:
    """A body of /v1/chat/completions. RequestError names the field at fault."""
    check_fields(body, CHAT, route)
    generation = parse_generation(
        body, max_tokens=MAX_TOKENS.of(body), n=N.of(body), asked=told_of_chat(body)
    )
    return ChatRequest(generation, parse_conversation(body))


def parse_completion(body: Body, route: str) -> tuple[GenerationRequest, list[Prompt]]:
    """A body of /v1/completions. RequestError names the field at fault."""
    check_fields(body, COMPLETION, route)
    request = parse_generation(
        body, max_tokens=MAX_TOKENS.of(body), n=N.of(body), asked=told_of_text(body)
    )
    best_of = BEST_OF.of(body)
    if best_of is not None and best_of != request.n:
        raise RequestError(
            f"`best_of` ({best_of}) other than `n` ({request.n}) is not supported by this server; "
            "leave it out.",
            param="best_of",
        )
    found = PROMPT.of(body)
    if found is None:
        raise RequestError(
            "`prompt` is missing; send a string, a list of strings or token ids.", param="prompt"
        )
    return request, found
