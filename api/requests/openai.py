"""Bodies of OpenAI's /v1/chat/completions and /v1/completions, once checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.requests.fields import (
    Body,
    Field,
    a_list,
    boolean,
    integer,
    mapping,
    token_limit,
    whole,
    wrong,
)
from api.requests.generation import GENERATION, MAX_N, GenerationRequest, parse_generation
from api.requests.prompts.conversation import (
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
from api.requests.prompts.message_forms import in_one_form
from api.requests.sampling import (
    CHAT_LOGPROBS,
    TEXT_LOGPROBS,
    TOP_LOGPROBS,
    told_of_chat,
    told_of_text,
)
from api.requests.tool_forms import function_of, tool_choice, tool_kind
from api.requests.verdicts import CHAT as CHAT_RULES
from api.requests.verdicts import COMPLETION as COMPLETION_RULES
from api.requests.verdicts import check_fields
from api.tools.tool_request import (
    Offer,
    ToolChoice,
    choose_tools,
    in_their_envelopes,
    make_tools,
)
from dllama.errors import RequestError

Prompt = str | list[int]


def messages_list(value: object, name: str) -> list[TemplateMessage]:
    """A list of objects, in one form; what they must hold is dllama.chat's to say."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(name, 'a list of messages like {"role": "user", "content": "Hello"}', value)
    return in_one_form(value)


def token_ids(value: object, name: str) -> list[int]:
    ids = [whole(item) for item in value] if isinstance(value, list) else [None]
    found = [i for i in ids if i is not None]
    if len(found) < len(ids):
        raise wrong(name, "a list of token ids", value)
    return found


def prompts(value: object, name: str) -> list[Prompt]:
    """One prompt or a list of them, each a string or a list of token ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(whole(item) is not None for item in value):
            return [token_ids(value, name)]
        found: list[Prompt] = []
        for i, item in enumerate(value):
            found.append(item if isinstance(item, str) else token_ids(item, f"{name}[{i}]"))
        return found
    raise wrong(name, "a string, a list of strings, a list of token ids or a list of those", value)


def tools(value: object, name: str) -> Offer:
    """A list of functions; other tools are left out."""
    sent: list[Mapping[str, object]] = []
    functions: list[Mapping[str, object]] = []
    paths: list[str] = []
    left_out: list[str] = []
    for i, tool in enumerate(a_list(value, name)):
        path = f"{name}[{i}]"
        kind = tool_kind(tool, path)
        if kind == "function":
            sent.append(mapping(tool, path))
            functions.append(function_of(tool, path))
            paths.append(f"{path}.function")
        else:
            left_out.append(f"{path}:{kind}")
    offer = make_tools(functions, paths, left_out=left_out)
    return offer._replace(tools=in_their_envelopes(offer.tools, sent))


MAX_TOKENS = Field(("n_predict", "max_completion_tokens", "max_tokens"), token_limit, None)
N = Field(("n",), integer(1, MAX_N), 1)
BEST_OF = Field(("best_of",), integer(1, MAX_N), None)
PROMPT = Field(("prompt",), prompts, None)
MESSAGES = Field(("messages",), messages_list, None)
ADD_GENERATION_PROMPT = Field(("add_generation_prompt",), boolean, None)
CONTINUE_FINAL_MESSAGE = Field(("continue_final_message",), continuation, None)
TOOLS: Field[Offer, Offer] = Field(("tools",), tools, Offer())
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
    left_out = check_fields(body, CHAT, route, CHAT_RULES)
    conversation = parse_conversation(body)
    generation = parse_generation(
        body,
        max_tokens=MAX_TOKENS.of(body),
        n=N.of(body),
        asked=told_of_chat(body),
        left_out=left_out + conversation.tools.left_out,
    )
    return ChatRequest(generation, conversation)


def parse_completion(body: Body, route: str) -> tuple[GenerationRequest, list[Prompt]]:
    """A body of /v1/completions. RequestError names the field at fault."""
    left_out = check_fields(body, COMPLETION, route, COMPLETION_RULES)
    request = parse_generation(
        body,
        max_tokens=MAX_TOKENS.of(body),
        n=N.of(body),
        asked=told_of_text(body),
        left_out=left_out,
    )
    best_of = BEST_OF.of(body)
    if best_of is not None and best_of > request.n:  # fewer choose among nothing
        raise RequestError(
            f"`best_of` ({best_of}) above `n` ({request.n}) is not supported by this server; "
            "leave it out.",
            param="best_of",
        )
    found = PROMPT.of(body)
    if found is None:
        raise RequestError(
            "`prompt` is missing; send a string, a list of strings or token ids.", param="prompt"
        )
    return request, found
