"""Google's Vertex AI: several requests of any route in one, at the path that its container is told.

https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements"""

from __future__ import annotations

import asyncio
import re

import orjson
from aiohttp import web

from api.body import GIVEN_BODY, json_response, read_object
from api.config import VertexRoutes
from api.context import CONTEXT
from api.http.guards import errors_as_json
from api.requests.fields import a_list, mapping, wrong
from api.routes import models
from api.routes.table import ROUTES, Route
from dllama.errors import ConfigError, RequestError

FORMAT = "@requestFormat"  # the field of an instance that names its route
MAX_INSTANCES = 128
OLLAMA = "/api/"  # its routes stream unless they are told not to


def format_name(path: str) -> str:
    """Returns the name of a route for `@requestFormat`: /v1/chat/completions is chatCompletions."""
    first, *others = re.split("[/_-]", path.removeprefix("/v1").removeprefix("/"))
    return first + "".join(word[:1].upper() + word[1:] for word in others)


def named_routes() -> dict[str, tuple[str, Route]]:
    """Returns the routes that an instance may name, by their paths and by their names; the first
    route of a name has it."""
    found: dict[str, tuple[str, Route]] = {}
    for route in ROUTES:
        for path in route.paths:
            if route.method == "POST" and "{" not in path:
                found[path] = (path, route)
                found.setdefault(format_name(path), (path, route))
    return found


NAMED_ROUTES = named_routes()


def vertex_routes(vertex: VertexRoutes) -> list[web.RouteDef]:
    """Returns the routes of a container of Vertex AI. Raises ConfigError for a path that is
    another route's."""
    taken = {path: route for route in ROUTES for path in route.paths}
    wanted = [web.post(vertex.predict, predict)]
    told = {"AIP_PREDICT_ROUTE": vertex.predict}
    if vertex.health not in taken or taken[vertex.health].handler is not models.health:
        told["AIP_HEALTH_ROUTE"] = vertex.health
        wanted += [web.get(vertex.health, models.health)] if vertex.health else []
    for name, path in told.items():
        if path in taken or list(told.values()).count(path) > 1:
            raise ConfigError(
                f"{name} is {path}, which is another route of this server; choose another path."
            )
    return wanted


async def predict(request: web.Request) -> web.Response:
    """{"predictions": [...]}: what each of `instances` is answered, or its error."""
    unread = request.clone()  # a request whose body is read cannot be copied
    body = await read_object(request, request.app[CONTEXT].config)
    instances = a_list(body.get("instances"), "instances")
    if len(instances) > MAX_INSTANCES:
        raise RequestError(
            f"`instances` has {len(instances)} of them, and a request may have {MAX_INSTANCES}; "
            "send several requests.",
            param="instances",
        )
    asked = [prediction(unread, value, f"instances[{i}]") for i, value in enumerate(instances)]
    tasks = [asyncio.create_task(one) for one in asked]
    return json_response({"predictions": await asyncio.gather(*tasks)})


async def prediction(unread: web.Request, instance: object, path: str) -> object:
    """Returns the answer of the route that an instance names, or an error in its shape. Runs in a
    task of its own."""

    async def ask(request: web.Request) -> web.StreamResponse:
        route_path, route, body = named(instance, path)
        GIVEN_BODY.set(body)
        return await errors_as_json(request.clone(rel_url=route_path), route.handler)

    response = await errors_as_json(unread.clone(), ask)
    assert isinstance(response, web.Response), "an answer that is no stream is whole"
    try:
        return orjson.loads(response.body or b"null")  # type: ignore[arg-type]
    except orjson.JSONDecodeError:
        return response.text


def named(instance: object, path: str) -> tuple[str, Route, dict[str, object]]:
    """Returns the path and the route that an instance names, and the body for it, which asks for
    no stream. Raises RequestError."""
    fields = mapping(instance, path)
    name = fields.get(FORMAT)
    if not isinstance(name, str) or name not in NAMED_ROUTES:
        raise wrong(
            f"{path}.{FORMAT}", 'the name of a route, such as "chatCompletions", or its path', name
        )
    route_path, route = NAMED_ROUTES[name]
    body = {key: value for key, value in fields.items() if key != FORMAT}
    if "stream" in body or route_path.startswith(OLLAMA):
        body["stream"] = False
    return route_path, route, body
