"""The requests of the load: one of every kind that could come out differently after a fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Client = Literal["openai", "events", "lines", "whole"]
"""The openai client; server-sent events, or lines of JSON, read to the letter; one whole answer."""

_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "ranks": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 6},
        "kind": {"enum": ["root", "worker"]},
    },
    "required": ["name", "ranks", "kind"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "restart_worker",
        "parameters": {
            "type": "object",
            "properties": {
                "host": {"type": "string", "maxLength": 30},
                "port": {"type": "integer"},
            },
            "required": ["host", "port"],
        },
    },
}
_LIST = "root, worker, root, worker, mesh, root, worker, root, worker, mesh, "
_LONG = "A worker holds a part of every layer, and the root holds the first one. " * 10


@dataclass(frozen=True, slots=True)
class Case:
    """A request whose answer is always the same."""

    name: str
    client: Client
    path: str
    body: dict[str, object]


def _chat(name: str, client: Client, question: str, **changes: object) -> Case:
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages, "max_tokens": 90, "temperature": 0, "seed": 1}
    return Case(name, client, "/v1/chat/completions", body | changes)


def _native(name: str, prompt: str, **changes: object) -> Case:
    body = {"prompt": prompt, "n_predict": 150, "temperature": 0, "ignore_eos": True}
    return Case(name, "events", "/completion", body | changes)


CASES = (
    _chat("greedy", "openai", "What is dllama?", max_tokens=150),
    _chat("seeded", "openai", "Tell me of workers.", temperature=0.9, seed=5, max_tokens=150),
    _chat("greedy with logprobs", "openai", "What is a rank?", logprobs=True, top_logprobs=3),
    _chat("seeded with logprobs", "events", "What does the root do?", temperature=1.1, seed=9,
          logprobs=True, top_logprobs=2),
    _chat("structured", "openai", "Describe a node as JSON.", temperature=0.7, seed=3,
          response_format={"type": "json_schema",
                           "json_schema": {"name": "node", "schema": _SCHEMA, "strict": True}}),
    _chat("tools", "openai", "Restart the worker on big:9998.", tools=[_TOOL],
          tool_choice="required", temperature=0.6, seed=4),
    _chat("long prompt", "events", _LONG + "What does a worker hold?"),
    _chat("two choices", "events", "Name a port.", n=2, temperature=1.0, seed=12, max_tokens=60),
    _chat("stop string", "events", "How are weights sent?", stop=["\n\n", " the root"]),
    _native("speculation", _LIST * 4, **{"speculative.n_max": 8, "n_predict": 150}),
    _native("mirostat", "A cluster is", mirostat=2, mirostat_tau=4.0, temperature=0.8, seed=6),
    _native("penalties and dry", "Once upon a time", temperature=0.9, seed=8, repeat_penalty=1.2,
            dry_multiplier=0.8, n_probs=2),
    _native("context shift", _LONG + "Once upon a time", n_predict=230, temperature=0.8, seed=7),
    _native("a long story", "Once upon a time", n_predict=300, temperature=0.7, seed=11),
    _native("regular expression", "Hosts: ", grammar='root ::= ([a-z]+ "-" [0-9]+ " "){12}',
            temperature=1.0, seed=2),
    Case("anthropic", "events", "/v1/messages",
         {"messages": [{"role": "user", "content": "What is a session?"}], "max_tokens": 90,
          "temperature": 0}),
    Case("responses", "events", "/v1/responses",
         {"input": "What is the mesh?", "max_output_tokens": 90, "temperature": 0}),
    Case("ollama", "lines", "/api/chat",
         {"messages": [{"role": "user", "content": "What is a heartbeat?"}],
          "options": {"temperature": 0, "num_predict": 90}}),
    Case("whole", "whole", "/v1/completions",
         {"prompt": "The weights", "max_tokens": 70, "temperature": 0.8, "seed": 21,
          "logprobs": 2}),
    Case("embedding", "whole", "/v1/embeddings", {"input": _LONG}),
)  # fmt: skip
