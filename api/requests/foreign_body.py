"""What the translators of other makers' bodies share: reading the fields they know, handing on
those that every route honours, and refusing the rest by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.replies.openai import Json
from api.requests.drafting import DRAFTING
from api.requests.engine_options import KEEPING
from api.requests.fields import IGNORED, SAMPLING, Body, Field, wrong
from dllama.errors import RequestError

# Fields of this server that no other maker has and that mean the same on every chat route.
PASSED = (
    frozenset(SAMPLING)
    | {name for field in (*KEEPING, *DRAFTING) for name in field.names}
    | {
        "model", "stream", "seed", "logit_bias", "ignore_eos", "chat_template_kwargs", "grammar",
        "json_schema", "regex", "samplers", "dry_sequence_breakers", "min_keep",
        "reasoning_format",
    }
)  # fmt: skip


def passed_on(
    body: Body, own: Sequence[Field[object, object]], harmless: frozenset[str], route: str
) -> Json:
    """The fields that go to the chat route as they are. Raises RequestError for a field that is
    neither among these, nor one of the translator's `own`, nor harmless."""
    known = {name for field in own for name in field.names}
    passed: Json = {}
    for name, value in body.items():
        if name in known or name in IGNORED or name in harmless or value is None:
            continue
        if name not in PASSED:
            raise RequestError(
                f"{route} knows no field `{name:.100}`; leave it out, because ignoring it could "
                "change the answer.",
                param=name[:100],
            )
        passed[name] = value
    return passed


def an_object(value: object, path: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise wrong(path, "an object", value)
    return value


def a_list(value: object, path: str) -> list[object]:
    if not isinstance(value, list):
        raise wrong(path, "a list", value)
    return value


def a_text(source: Mapping[str, object], name: str, path: str) -> str:
    """The text under `name`, which has to be there."""
    value = source.get(name)
    if not isinstance(value, str):
        raise wrong(f"{path}.{name}", "a string", value)
    return value


def unsupported(path: str, kind: object, taken: str) -> RequestError:
    """A part of a message, a tool or the like that this server cannot take."""
    return RequestError(
        f"`{path}` is of the type {str(kind)[:60]!r}; this server takes {taken}.",
        param=f"{path}.type",
    )
