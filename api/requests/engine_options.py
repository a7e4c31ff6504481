"""The fields that say how the engine treats a sequence: what it caches of the conversation, how
long it may run, what happens when the context is full, and how tokens are guessed. None of them is
about what the answer says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from api.requests.fields import MAX_INT, Body, Field, boolean, integer, number, wrong
from api.served_model import ServedModel

MAX_SESSION_CHARS = 128
MAX_DRAFT = 1024
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
DRAFT_MAX = Field(("speculative.n_max",), integer(0, MAX_DRAFT), None)
DRAFT_MIN = Field(("speculative.n_min",), integer(0, MAX_DRAFT), 0)
DRAFT_P_MIN = Field(("speculative.p_min",), number(0.0, 1.0), 0.0)
ENGINE_OPTIONS: tuple[Field[object, object], ...] = (
    CACHE_PROMPT, SESSION_ID, ID_SLOT, TIMEOUT_S, CONTEXT_SHIFT, N_KEEP, DRAFT_MAX, DRAFT_MIN,
    DRAFT_P_MIN,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`context_shift` None is the server's setting; `n_keep` None is the length of the system
    prompt, -1 that of the whole prompt. `draft_max` None leaves guesses to the engine, 0 means no
    guesses; see `dllama.requests.Submit`."""

    cache_prompt: bool = True
    session_id: str | None = None
    timeout_s: float | None = None
    context_shift: bool | None = None
    n_keep: int | None = None
    draft_max: int | None = None
    draft_min: int = 0
    draft_p_min: float = 0.0

    def with_header(self, headers: Mapping[str, str]) -> EngineOptions:
        """The options with the session that the header names, if the body names none. Raises
        RequestError."""
        named = headers.get(SESSION_HEADER)
        if named is None or self.session_id is not None:
            return self
        return replace(self, session_id=session_name(named, SESSION_HEADER))


def parse_engine_options(body: Body) -> EngineOptions:
    """The options of a body. RequestError names the field at fault. llama-server's slot N is the
    session "slot-N"."""
    session_id, slot = SESSION_ID.of(body), ID_SLOT.of(body)
    if session_id is None and slot >= 0:
        session_id = slot_session(slot)
    draft_max, draft_min = DRAFT_MAX.of(body), DRAFT_MIN.of(body)
    if draft_max is not None:
        draft_min = min(draft_min, draft_max)  # as llama-server does
    return EngineOptions(
        cache_prompt=CACHE_PROMPT.of(body),
        session_id=session_id,
        timeout_s=TIMEOUT_S.of(body),
        context_shift=CONTEXT_SHIFT.of(body),
        n_keep=N_KEEP.of(body),
        draft_max=draft_max,
        draft_min=draft_min,
        draft_p_min=DRAFT_P_MIN.of(body),
    )


def slot_session(slot: int) -> str:
    """The session that a request with this `id_slot` belongs to."""
    return f"slot-{slot}"


def may_shift(model: ServedModel, options: EngineOptions) -> bool:
    """True if a sequence's context shifts when it is full."""
    asked = options.context_shift
    return model.facts.context_shift if asked is None else asked
