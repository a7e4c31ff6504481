"""Requests for every route of the API, right ones and wrong ones, as hypothesis draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import strategies as st

from api.requests.verdicts import CHAT as CHAT_RULES
from api.requests.verdicts import COMPLETION, MESSAGES
from api.requests.verdicts import RESPONSES as RESPONSE_RULES
from api.routes.table import served_routes, unsupported_routes

MAX_TOKENS = 6  # of a good request's answer
USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
LIMIT = {"max_tokens": MAX_TOKENS}
CHAT: dict[str, Any] = {"messages": [USER], **LIMIT}
OPTIONS: dict[str, Any] = {"num_predict": MAX_TOKENS, "temperature": 0, "stop": ["x"]}
NATIVE: dict[str, Any] = {"prompt": "Once", "n_predict": MAX_TOKENS}
RESPONSES: dict[str, Any] = {"input": "Hi", "max_output_tokens": MAX_TOKENS}

# Bodies that each route takes, by its path without the version.
GOOD: dict[str, list[dict[str, Any]]] = {
    "/chat/completions": [
        CHAT,
        {**CHAT, "n": 2, "logprobs": True, "top_logprobs": 2, "stream_options": {}},
        {**CHAT, "tools": [{"type": "function", "function": TOOL}], "tool_choice": "auto"},
        {**CHAT, "response_format": {"type": "json_object"}},
        {"messages": [USER, {"role": "assistant", "content": "Well"}], **LIMIT},
    ],
    "/completions": [
        {"prompt": "Once", **LIMIT},
        {"prompt": ["a", "b"], "logprobs": 2, **LIMIT},
        {"prompt": [[1, 2], [3]], "stop": ["x"], **LIMIT},
    ],
    "/completion": [
        NATIVE,
        {**NATIVE, "prompt": [1, "a"], "n_probs": 2, "return_tokens": True},
        {**NATIVE, "n_indent": 2, "response_fields": ["content"], "return_progress": True},
    ],
    "/infill": [{"input_prefix": "a", "input_suffix": "b", "n_predict": MAX_TOKENS}],
    "/responses": [
        RESPONSES,
        {**RESPONSES, "instructions": "x", "store": False, "metadata": {"a": "b"}},
        {**RESPONSES, "input": [{"role": "user", "content": [
            {"type": "input_text", "text": "a"}]}]},
        {**RESPONSES, "tools": [{"type": "function", **TOOL}]},
    ],
    "/messages": [
        CHAT,
        {**CHAT, "system": [{"type": "text", "text": "x"}], "stop_sequences": ["x"]},
        {**CHAT, "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
        {**LIMIT, "messages": [USER, {"role": "assistant", "content": [
            {"type": "tool_use", "id": "t", "name": "f", "input": {}}]}, {"role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]}]},
    ],
    "/messages/count_tokens": [{"messages": [USER]}],
    "/chat/completions/input_tokens": [{"messages": [USER]}],
    "/responses/input_tokens": [{"input": "Hi"}],
    "/embedding": [{"content": "a"}],
    "/embeddings": [{"input": ["a", "b"], "encoding_format": "base64"}, {"input": [1, 2]}],
    "/tokenize": [{"content": "Hello", "with_pieces": True}],
    "/detokenize": [{"tokens": [1, 2, 3]}],
    "/slots/{id}": [{"filename": "a"}],
    "/sessions/{name}": [{"filename": "a"}, {}],
    "/apply-template": [{"messages": [USER]}],
    "/api/chat": [
        {"messages": [USER], "options": OPTIONS},
        {"messages": [USER], "options": OPTIONS, "format": "json", "think": False},
        {"messages": [USER, {"role": "assistant", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "tool_name": "f", "content": "1"}], "options": OPTIONS,
            "tools": [{"type": "function", "function": TOOL}]},
        {"messages": [], "keep_alive": "5m"},
    ],
    "/api/generate": [
        {"prompt": "Hi", "options": OPTIONS, "system": "x", "context": [1, 2], "logprobs": True},
        {"prompt": "Hi", "options": OPTIONS, "raw": True},
        {"prompt": "Hi", "options": OPTIONS, "template": "{{ .Prompt }}", "suffix": "x"},
        {"keep_alive": 0},
    ],
    "/api/embed": [{"input": ["a", "b"], "dimensions": 2, "truncate": True}],
    "/api/embeddings": [{"prompt": "a"}],
    "/api/show": [{"model": "toy", "verbose": True}],
    "/streams/lookup": [{"conversation_ids": ["a", "b"]}],
}  # fmt: skip
EXTRA = (
    "stream", "stream_options", "max_tokens", "n", "stop", "seed", "logit_bias", "ignore_eos",
    "temperature", "top_k", "samplers", "grammar", "json_schema", "response_format", "tools",
    "tool_choice", "best_of", "previous_response_id", "thinking", "reasoning", "text", "model",
    "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "pooling",
    "timings_per_token", "t_max_predict_ms", "session_id", "nonsense",
)  # fmt: skip
NAMES = sorted(
    {
        *EXTRA,
        *CHAT_RULES,
        *COMPLETION,
        *RESPONSE_RULES,
        *MESSAGES,
        *(name for bodies in GOOD.values() for b in bodies for name in b),
    }
)
KEYS = ("role", "content", "type", "text", "1", "include_usage", "name", "function", "schema",
        "properties", "parameters", "arguments", "id", "format")  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 400)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["user", "assistant", "tool", "text", "", "Hi", "65", "auto", "json_schema"])
    | st.text(max_size=10)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)

SERVED = served_routes()
ROUTES = SERVED + unsupported_routes()


@dataclass(frozen=True, slots=True)
class Request:
    """One request; a client that `leaves` closes its connection at once. With a `conversation`
    its stream goes on without it."""

    method: str
    path: str
    data: bytes
    leaves: bool = False
    conversation: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.conversation is None else {"X-Conversation-Id": self.conversation}


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within a body."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            found += places(item, (*path, i))
    return found


def replaced(body: object, path: tuple[Any, ...], value: object) -> Any:
    """The body with another value at a path."""
    if not path:
        return value
    if isinstance(body, dict):
        return {k: replaced(v, path[1:], value) if k == path[0] else v for k, v in body.items()}
    assert isinstance(body, list)
    return [replaced(v, path[1:], value) if i == path[0] else v for i, v in enumerate(body)]


@st.composite
def bodies(draw: st.DrawFn, path: str) -> bytes:
    """A good body, or one with a few things wrong, or no body at all."""
    found = GOOD.get(path.removeprefix("/v1"), [{}])
    body: Any = dict(draw(st.sampled_from(found)))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.binary(max_size=40))
    if kind == 1:
        return orjson.dumps(draw(values))
    if kind <= 4 and body:
        body = replaced(body, draw(st.sampled_from(places(body))), draw(values))
    if kind >= 5:
        more = draw(st.dictionaries(st.sampled_from(NAMES), values, max_size=2))
        body = {**body, **more}
    if draw(st.booleans()):
        body["stream"] = True
    return orjson.dumps(body)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any route, with a body where it takes one; now and then a wrong method or path."""
    route = draw(st.sampled_from(SERVED if draw(st.integers(0, 19)) else ROUTES))
    path = route.path.replace("{name:.+}", "any").replace("{name}", "any")
    path = path.replace("{id}", draw(st.sampled_from(["0", "5000", "any"])))
    if path.startswith(("/slots/", "/sessions/")):
        path += "?action=" + draw(st.sampled_from(["save", "restore", "erase", "x"]))
    if path == "/v1/stream":
        path += draw(st.sampled_from(["", "?conv_id=a", "?conv_id=b&from=9", "?conv_id=a&from=x"]))
    method = route.method
    oddity = draw(st.integers(0, 30))
    if oddity == 0:
        method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"]))
    elif oddity == 1:
        path += draw(st.sampled_from(["/", "/x", "?model=x", "?%00", "%2e%2e/"]))
    data = draw(bodies(route.path)) if method in ("POST", "PUT") else b""
    conversation = draw(st.sampled_from([None, None, None, "a", "b"]))
    return Request(method, path, data, draw(st.integers(0, 9)) == 0, conversation)
