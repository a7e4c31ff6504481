"""What requests say about streams that go on without their client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from api.conversation_streams import Conversation
from api.http.keys import key_of
from api.requests.fields import Field, a_list, string
from dllama.errors import RequestError

CONVERSATION_HEADER = "X-Conversation-Id"
MAX_CONVERSATION_CHARS = 512  # clients add the name of a model
MAX_CONVERSATIONS = 1024  # of one look-up


def conversation_of(headers: Mapping[str, str], keys: Sequence[str]) -> Conversation | None:
    """Returns the conversation that a request's answer belongs to, None if it names none. Raises
    RequestError for a name that is too long."""
    found = headers.get(CONVERSATION_HEADER, "")
    if not found:
        return None
    return Conversation(owner_of(headers, keys), checked_id(found, CONVERSATION_HEADER))


def owner_of(headers: Mapping[str, str], keys: Sequence[str]) -> str:
    """Returns the one of the server's keys that a request carries, "" if the server has none."""
    return key_of(headers, keys) or ""


def asked_id(query: Mapping[str, str]) -> str:
    """Returns the conversation that a query names. Raises RequestError if it names none."""
    found = query.get("conv_id", "")
    if not found:
        raise RequestError(
            f"`conv_id` is missing; send the {CONVERSATION_HEADER} of the request whose stream is "
            "meant, as ?conv_id=...",
            param="conv_id",
        )
    return checked_id(found, "conv_id")


def checked_id(found: str, name: str) -> str:
    if len(found) > MAX_CONVERSATION_CHARS:
        raise RequestError(
            f"`{name}` has {len(found)} characters; at most {MAX_CONVERSATION_CHARS} are taken.",
            param=name,
        )
    return found


def asked_offset(query: Mapping[str, str]) -> int:
    """Returns the byte that a replay begins at, 0 if the query says nothing."""
    found = query.get("from", "")
    if not found:
        return 0
    if not (found.isascii() and found.isdigit() and len(found) < 19):
        raise RequestError(
            f"`from` must be the number of a byte, counted from 0, but is {found[:60]!r}.",
            param="from",
        )
    return int(found)


def conversation_ids(value: object, name: str) -> list[str]:
    """Reads a list of conversations."""
    found = a_list(value, name)
    if len(found) > MAX_CONVERSATIONS:
        raise RequestError(
            f"`{name}` names {len(found)} conversations; at most {MAX_CONVERSATIONS} are taken.",
            param=name,
        )
    return [string(item, f"{name}[{i}]") for i, item in enumerate(found)]


CONVERSATION_IDS: Field[list[str], list[str]] = Field(("conversation_ids",), conversation_ids, [])
