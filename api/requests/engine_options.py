"""Fields about what is kept of a conversation, for how long it may run, and what happens when it
outgrows the context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from api.requests.fields import MAX_INT, Body, Field, boolean, integer, number, wrong

MAX_SESSION_CHARS = 128
SESSION_HEADER = "X-Session-Id"


def session_name(value: object, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SESSION_CHARS:
        raise wrong(name, f"a name of 1 to {MAX_SESSION_CHARS} characters", value)
    return value


CACHE_PROMPT = Field(("cache_prompt",), boolean, True)
SESSION_ID = Field(("session_id",), session_name, None)
ID_SLOT = Field(("id_slot",), integer(-1, 1023), -1)
TIMEOUT_S = Field(("timeout_s",), number(0.001, 86_400), None)
CONTEXT_SHIFT = Field(("context_shift",), boolean, None)
N_KEEP = Field(("n_keep",), integer(-1, MAX_INT), None)
KEEPING: tuple[Field[object, object], ...] = (
    CACHE_PROMPT, SESSION_ID, ID_SLOT, TIMEOUT_S, CONTEXT_SHIFT, N_KEEP,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Keeping:
    """`context_shift` None is as the server was started; `n_keep` None are the tokens of the
    system prompt, -1 those of the whole prompt."""

    cache_prompt: bool = True
    session_id: str | None = None
    timeout_s: float | None = None
    context_shift: bool | None = None
    n_keep: int | None = None


def parse_keeping(body: Body) -> Keeping:
    """RequestError names the field at fault. llama-server's slot N is the session "slot-N"."""
    session_id, slot = SESSION_ID.of(body), ID_SLOT.of(body)
    if session_id is None and slot >= 0:
        session_id = slot_session(slot)
    return Keeping(
        cache_prompt=CACHE_PROMPT.of(body),
        session_id=session_id,
        timeout_s=TIMEOUT_S.of(body),
        context_shift=CONTEXT_SHIFT.of(body),
        n_keep=N_KEEP.of(body),
    )


def slot_session(slot: int) -> str:
    """The session that a request with this `id_slot` belongs to."""
    return f"slot-{slot}"


def with_header(keeping: Keeping, headers: Mapping[str, str]) -> Keeping:
    """The session that the header names, where the body names none; RequestError."""
    named = headers.get(SESSION_HEADER)
    if named is None or keeping.session_id is not None:
        return keeping
    return replace(keeping, session_id=session_name(named, SESSION_HEADER))
