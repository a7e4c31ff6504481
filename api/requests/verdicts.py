"""What happens to a field of a request, for each API: honoured, taken, left out, or refused.

Fields that are honoured have a `Field` in their API's parser; all others that clients are known to
send have a row here. docs/fields.md shows both. A field that is in neither is left out too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import orjson

from api.requests.fields import Body, Field
from dllama.errors import RequestError


class Verdict(StrEnum):
    HONOURED = "honoured"  # it changes the answer as its maker says
    TAKEN = "taken"  # it cannot change the answer
    LEFT_OUT = "left out"  # it could, and the client is told that it does not
    REFUSED = "refused"  # it would, and an answer without it is wrong


class Rule(NamedTuple):
    """What becomes of a field. With one of the values `off`, null or an empty value it says
    nothing, and is always taken."""

    verdict: Verdict
    why: str
    off: tuple[object, ...] = ()


Rules = Mapping[str, Rule]


def taken(why: str) -> Rule:
    return Rule(Verdict.TAKEN, why)


def left_out(why: str, *off: object) -> Rule:
    return Rule(Verdict.LEFT_OUT, why, off)


def refused(why: str, *off: object) -> Rule:
    return Rule(Verdict.REFUSED, why, off)


ACCOUNT = "is about the account, not about the answer"
CACHING = "the cache of prompts needs no advice"
HOSTED = "this server runs no tools of its own"

# Fields that clients send to every API.
EVERYWHERE: Rules = {
    "user": taken(ACCOUNT),
    "metadata": taken("is for the sender's own books"),
    "store": taken("nothing is stored but responses of /v1/responses"),
    "service_tier": taken(ACCOUNT),
    "safety_identifier": taken(ACCOUNT),
    "prompt_cache_key": taken(CACHING),
    "prompt_cache_retention": taken(CACHING),
    "prompt_cache_options": taken(CACHING),
    "moderation": taken("nothing is moderated"),
    "adaptive_target": refused("there is no adaptive sampler", -1, -1.0),
    "adaptive_decay": taken("counts only with `adaptive_target`"),
    "lora": refused("there are no adapters"),
    "verbose": left_out("this API's answers have no place for it", False),
    "n_discard": left_out("a full context drops the older half", 0),
    "n_cache_reuse": taken(CACHING),
    "backend_sampling": taken("sampling is done in one place"),
    "reasoning_control": left_out("thoughts cannot be ended from outside", False),
    "reasoning_budget_tokens": left_out("thoughts have no length of their own", -1),
    "thinking_budget_tokens": left_out("thoughts have no length of their own", -1),
    "reasoning_budget_message": taken("counts only with a budget"),
    "sse_ping_interval": taken("streams are kept alive anyway"),
}

# Fields of llama-server's own routes, on the routes of other APIs.
NATIVE_ONLY: Rules = {
    "return_tokens": left_out("this API's answers have no place for ids", False),
    "t_max_predict_ms": refused("only llama-server's own routes have it", -1, 0),
    "n_indent": refused("only llama-server's own routes have it", 0),
    "response_fields": refused("only llama-server's own routes have it"),
}

CHAT: Rules = {
    **EVERYWHERE,
    **NATIVE_ONLY,
    "prediction": taken("changes the speed, not the answer"),
    "verbosity": left_out("models here know no such wish", "medium"),
    "web_search_options": left_out(HOSTED),
    "functions": refused("OpenAI has replaced it; send `tools`"),
    "function_call": refused("OpenAI has replaced it; send `tool_choice`", "none", "auto"),
    "modalities": refused("models here write text only", ["text"]),
    "audio": taken("counts only with `modalities`"),
    "echo": left_out("an answer is told without its prompt", False),
    "suffix": refused("use /infill", ""),
}

COMPLETION: Rules = {
    **EVERYWHERE,
    **NATIVE_ONLY,
    "echo": refused("an answer is told without its prompt", False),
    "suffix": refused("use /infill"),
    "top_logprobs": refused("send `logprobs` with a number", 0),
}

NATIVE: Rules = {
    **EVERYWHERE,
    "logprobs": refused("send `n_probs`", False, 0),
    "top_logprobs": refused("send `n_probs`", 0),
}

RESPONSES: Rules = {
    **EVERYWHERE,
    **NATIVE_ONLY,
    "access_programs": taken(ACCOUNT),
    "max_tool_calls": taken(HOSTED),
    "background": refused("an answer is sent to whom it is asked by", False),
    "background_options": taken("counts only with `background`"),
    "conversation": refused("it is not stored; send its items, or `previous_response_id`"),
    "context_management": left_out("a conversation is never shortened"),
    "image": taken("counts only with images"),
    "prompt": refused("there are no stored prompts; send `input`"),
    "truncation": taken("a conversation that is too long is refused, never shortened"),
}

MESSAGES: Rules = {
    **EVERYWHERE,
    **NATIVE_ONLY,
    "betas": taken("there are no stages of release here"),
    "billing_policy": taken(ACCOUNT),
    "cache_control": taken(CACHING),
    "compaction": refused("conversations are not summarized by the server"),
    "container": left_out(HOSTED),
    "context_management": left_out("a conversation is never shortened"),
    "diagnostics": taken("answers have none"),
    "fallback_credit_token": taken(ACCOUNT),
    "fallbacks": taken("no answer is declined, so no other model is asked"),
    "inference_geo": taken("is about where, not about what"),
    "mcp_servers": left_out(HOSTED),
    "speed": taken("is about when, not about what"),
    "thread": refused("conversations are not stored; send all messages"),
    "user_profile_id": taken(ACCOUNT),
    "workspace_id": taken(ACCOUNT),
}  # fmt: skip

EMBEDDINGS: Rules = EVERYWHERE

# Within `stream_options`, `reasoning`, `text` and `output_config`.
STREAM_OPTIONS: Rules = {"include_obfuscation": taken("pads OpenAI's events, for their secrecy")}
REASONING: Rules = {
    "summary": taken("the thoughts themselves are shown"),
    "generate_summary": taken("the thoughts themselves are shown"),
    "context": left_out("the template decides which thoughts it shows", "auto"),
    "mode": left_out("there is one mode", "standard"),
}
TEXT: Rules = {"verbosity": CHAT["verbosity"]}
OUTPUT_CONFIG: Rules = {"task_budget": left_out("models here are not told of budgets")}
THINKING: Rules = {
    "budget_tokens": left_out("thoughts have no length of their own; `max_tokens` holds for all"),
    "display": taken("thoughts are always shown"),
}


def same(a: object, b: object) -> bool:
    """Equality that keeps false and 0 apart, as JSON does."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def says_nothing(value: object) -> bool:
    """True for null and for the empty values that clients send in its place."""
    return value is None or (isinstance(value, str | list | dict) and not value)


def check_fields(
    body: Body,
    fields: Sequence[Field[object, object]],
    route: str,
    rules: Rules = EVERYWHERE,
    path: str = "",
) -> tuple[str, ...]:
    """Returns the names of what is left out of `body`, under `path` if it is a part of another.
    Raises RequestError for the first field that is refused."""
    known = {name for field in fields for name in field.names}
    found: list[str] = []
    for name, value in body.items():
        if name in known or says_nothing(value):
            continue
        rule = rules.get(name)
        if rule is None:
            found.append(path + name[:100])
        elif rule.verdict is Verdict.TAKEN or any(same(value, off) for off in rule.off):
            continue
        elif rule.verdict is Verdict.LEFT_OUT:
            found.append(path + name)
        else:
            raise _refusal(path + name, rule, route)
    return tuple(found + _contradicted(body, fields, path))


def _refusal(name: str, rule: Rule, route: str) -> RequestError:
    offs = " or ".join(orjson.dumps(off).decode() for off in rule.off)
    return RequestError(
        f"`{name}` is not supported by {route}: {rule.why}. Leave it out"
        + (f", or send {offs}." if offs else "."),
        param=name,
    )


def _contradicted(body: Body, fields: Sequence[Field[object, object]], path: str) -> list[str]:
    """Returns the names that do not count, because another name of the same field comes first and
    says something else."""
    found: list[str] = []
    for field in fields:
        sent = [name for name in field.names if body.get(name) is not None]
        found += [path + name for name in sent[1:] if not same(body[name], body[sent[0]])]
    return found
