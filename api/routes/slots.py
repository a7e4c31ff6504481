"""GET /slots tells what each of the engine's slots does, as llama-server does. POST /slots/{id} and
/sessions/{name} save a conversation's keys and values to disk, restore them, or forget them.
llama-server's slot N is the session "slot-N"."""

from __future__ import annotations

import uuid

from aiohttp import web

from api.answers.sequence import AnswerSequence
from api.body import json_response, read_object
from api.context import CONTEXT, ApiContext
from api.errors import ApiError
from api.model_use import use_model
from api.replies.event_stream import Json
from api.replies.settings import sampling_settings
from api.requests.engine_options import session_name, slot_session
from api.requests.fields import Field, string
from api.requests.generation import MODEL
from api.requests.verdicts import check_fields
from api.served_model import ServedModel
from dllama.errors import EngineBusy, RequestError
from dllama.requests import SessionAction, SessionCall, SessionReply

MAX_SLOT = 1023
FILENAME = Field(("filename",), string, None)
EXAMPLE = '{"filename": "monday"}'

# What llama-server calls the tokens, the bytes and the time of each.
NAMES: dict[SessionAction, tuple[str, str | None, str | None]] = {
    SessionAction.SAVE: ("n_saved", "n_written", "save_ms"),
    SessionAction.RESTORE: ("n_restored", "n_read", "restore_ms"),
    SessionAction.ERASE: ("n_erased", None, None),
}

Rows = list[AnswerSequence | None]


def occupied(context: ApiContext, model: ServedModel) -> Rows:
    """Returns the sequence in each of the model's slots. The engine runs the oldest; those that
    wait have no slot."""
    rows: Rows = [None] * model.facts.n_slots
    moved: list[AnswerSequence] = []
    for slot, sequence in context.meter_of(model).sequences():
        if not isinstance(sequence, AnswerSequence) or sequence.model is not model:
            continue
        if slot < len(rows):
            rows[slot] = sequence
        else:
            moved.append(sequence)
    free = [i for i, row in enumerate(rows) if row is None]
    for i, sequence in zip(free, moved, strict=False):
        rows[i] = sequence
    return rows


def slot_row(index: int, model: ServedModel, sequence: AnswerSequence | None) -> Json:
    row: Json = {
        "id": index,
        "n_ctx": model.max_seq_len,
        "speculative": model.facts.speculates,
        "is_processing": sequence is not None,
    }
    if sequence is None:
        return row
    limit = sequence.max_tokens
    is_read = sequence.first_at is not None
    row |= {
        "id_task": sequence.id,
        "n_prompt_tokens": sequence.n_prompt,
        "n_prompt_tokens_processed": sequence.n_prompt if is_read else sequence.n_computed,
        "n_prompt_tokens_cache": sequence.n_cached,
        "params": sampling_settings(sequence.sampling),
        "next_token": [
            {
                "has_next_token": sequence.finish is None,
                "n_remain": -1 if limit is None else limit - sequence.n_completion,
                "n_decoded": sequence.n_completion,
            }
        ],
    }
    return row


async def slots(request: web.Request) -> web.Response:
    """Answers what each slot does; with ?fail_on_no_slot=1 a 503 if none is free."""
    context = request.app[CONTEXT]
    if not context.config.shows_slots:
        raise ApiError(
            501, "This server does not show its slots; start it without --no-slots.",
            "not_supported_error", code="not_supported",
        )  # fmt: skip
    model = context.models.look(request.query.get("model"))
    rows = occupied(context, model)
    if request.query.get("fail_on_no_slot") == "1" and None not in rows:
        raise ApiError(
            503, "No slot is free now; ask again in a moment.", "unavailable_error",
            retry_after_s=1.0,
        )  # fmt: skip
    return json_response([slot_row(i, model, sequence) for i, sequence in enumerate(rows)])


async def slot_action(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    if not (name.isascii() and name.isdigit() and len(name) <= 4 and int(name) <= MAX_SLOT):
        raise RequestError(f"There is no slot {name!r:.40}; slots are 0 to {MAX_SLOT}.", param="id")
    return await act(request, slot_session(int(name)), {"id_slot": int(name)})


async def session_action(request: web.Request) -> web.Response:
    name = session_name(request.match_info["name"], "session_id")
    return await act(request, name, {"session_id": name})


async def act(request: web.Request, session: str, head: Json) -> web.Response:
    context = request.app[CONTEXT]
    action = action_of(request.query.get("action"))
    filename = ""
    model_name = request.query.get("model")
    if action is not SessionAction.ERASE or request.can_read_body:
        body = await read_object(request, context.config)
        context.left_out.tell(request, check_fields(body, (FILENAME, MODEL), request.path))
        filename = FILENAME.of(body) or ""
        model_name = MODEL.of(body) or model_name
    model = await use_model(request, model_name)
    if action is not SessionAction.ERASE:
        if not model.facts.saves_sessions:
            raise ApiError(
                501, "This server saves no sessions; start it with --slot-save-path DIR.",
                "not_supported_error",
            )  # fmt: skip
        if not filename:
            raise RequestError(
                f"`filename` is missing; send a body like {EXAMPLE}.", param="filename"
            )
    call = SessionCall(f"session-{uuid.uuid4().hex}", action, session, filename)
    reply = await model.engine.session(call)
    if reply.error is not None and reply.retry_after_s is not None:
        raise EngineBusy(reply.error, retry_after_s=reply.retry_after_s)
    if reply.error is not None:
        raise RequestError(reply.error, param="filename" if filename else "id")
    return json_response(head | told(action, filename, reply))


def action_of(value: str | None) -> SessionAction:
    try:
        return SessionAction(value or "")
    except ValueError:
        raise RequestError(
            f"`action` is {value!r:.40}; send ?action=save, restore or erase.", param="action"
        ) from None


def told(action: SessionAction, filename: str, reply: SessionReply) -> Json:
    """Returns llama-server's answer."""
    tokens, n_bytes, ms = NAMES[action]
    answer: Json = {tokens: reply.n_tokens}
    if n_bytes is not None:
        answer |= {"filename": filename, n_bytes: reply.n_bytes, "timings": {ms: reply.elapsed_ms}}
    return answer
