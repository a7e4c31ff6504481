"""GET, POST and DELETE /cluster/nodes: the nodes that compute a model, and how one joins or leaves
while it is served."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import asdict

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.errors import ApiError
from api.model_use import use_model
from api.requests.fields import Field, number, string
from api.requests.generation import MODEL
from api.requests.verdicts import check_fields
from dllama.errors import RequestError
from dllama.nodes import NodesAction, NodesCall

ADDRESS = Field(("address",), string, None)
SHARE = Field(("share",), number(1e-6, 1e6), 1.0)
EXAMPLE = '{"address": "192.168.1.7:9998"}'
PATIENCE_S = 60.0  # for nodes to be greeted, and for a session without one that leaves
MAX_ADDRESS = 256  # characters, as a message takes them; the name of a host has 253 at most


async def list_nodes(request: web.Request) -> web.Response:
    return await ask(request, NodesAction.LIST, request.query.get("model"))


async def add_node(request: web.Request) -> web.Response:
    """Answers when the worker was greeted and has a place in the next plan, which begins to compute
    at once."""
    body = await read_object(request, request.app[CONTEXT].config)
    fields = (ADDRESS, SHARE, MODEL)
    request.app[CONTEXT].left_out.tell(request, check_fields(body, fields, request.path))
    model = MODEL.of(body) or request.query.get("model")
    return await ask(request, NodesAction.ADD, model, ADDRESS.of(body), SHARE.of(body))


async def remove_node(request: web.Request) -> web.Response:
    """Answers when the others compute without the worker, so that it may be switched off."""
    address = request.match_info.get("address") or request.query.get("address")
    model = request.query.get("model")
    if address is None and request.can_read_body:
        body = await read_object(request, request.app[CONTEXT].config)
        request.app[CONTEXT].left_out.tell(
            request, check_fields(body, (ADDRESS, MODEL), request.path)
        )
        address, model = ADDRESS.of(body), MODEL.of(body) or model
    return await ask(request, NodesAction.REMOVE, model, address)


async def ask(
    request: web.Request,
    action: NodesAction,
    model_name: str | None,
    address: str | None = None,
    share: float = 1.0,
) -> web.Response:
    """Answers with all nodes, as they are after the change."""
    if action is not NodesAction.LIST:
        address = checked(address)
    if action is NodesAction.ADD:
        model = await use_model(request, model_name)
    else:
        model = request.app[CONTEXT].models.look(model_name)
    call = NodesCall(f"nodes-{uuid.uuid4().hex}", action, address or "", share)
    try:
        async with asyncio.timeout(PATIENCE_S):
            reply = await model.engine.nodes(call)
    except TimeoutError:
        raise ApiError(
            503, f"The engine has not answered within {PATIENCE_S:.0f} s, and does what was asked "
            "for as soon as it can; GET /cluster/nodes shows what has become of it.",
            "unavailable_error", retry_after_s=1.0,
        ) from None  # fmt: skip
    if reply.error is not None:
        raise RequestError(reply.error, param="address")
    return json_response({"model": model.id, "nodes": [asdict(row) for row in reply.nodes]})


def checked(address: str | None) -> str:
    """Returns the address of a request. Raises RequestError where it is missing, or longer than any
    is."""
    if not address:
        raise RequestError(f"`address` is missing; send a body like {EXAMPLE}.", param="address")
    if len(address) > MAX_ADDRESS:
        raise RequestError(
            f"`address` has {len(address)} characters; expected host or host:port, of at most "
            f"{MAX_ADDRESS}.",
            param="address",
        )
    return address
