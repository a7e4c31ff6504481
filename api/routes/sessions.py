"""POST /slots/{id}?action=... and /sessions/{name}?action=...: a conversation's keys and values
are saved to disk, restored from it, or forgotten. llama-server's slot N is the session "slot-N"."""

from __future__ import annotations

import uuid

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.errors import ApiError
from api.replies.openai import Json
from api.requests.engine_options import session_name, slot_session
from api.requests.fields import Field, check_fields, string
from api.requests.generation import MODEL
from dllama.errors import RequestError
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
        check_fields(body, (FILENAME, MODEL), request.path)
        filename = FILENAME.of(body) or ""
        model_name = MODEL.of(body) or model_name
    model = context.models.find(model_name)
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
    """llama-server's answer."""
    tokens, n_bytes, ms = NAMES[action]
    answer: Json = {tokens: reply.n_tokens}
    if n_bytes is not None:
        answer |= {"filename": filename, n_bytes: reply.n_bytes, "timings": {ms: reply.elapsed_ms}}
    return answer
