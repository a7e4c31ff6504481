"""Every route of the server, one row each: adding a route is adding its handler and its row. The
table makes the routes of the application, says which of them need no API key, and is what GET / and
docs/routes.md show."""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Handler

from api.body import json_response
from api.context import CONTEXT
from api.downloads import events, llama_server, tasks
from api.downloads import ollama as pulling
from api.errors import ApiError
from api.http.page import HEADERS, INDEX, NAMES, SERVICE_WORKER, page_file
from api.routes import (
    chat,
    embeddings,
    metrics,
    models,
    native,
    nodes,
    ollama,
    ollama_embeddings,
    responses,
    router,
    slots,
    streams,
    text,
)


class Route(NamedTuple):
    """`paths` are one route under several names, of which the first is shown. `about` is shown
    with it. A public route needs no API key."""

    method: str
    paths: tuple[str, ...]
    handler: Handler
    about: str
    is_public: bool = False


OLLAMA = "Ollama is running"


async def index(request: web.Request) -> web.Response:
    """Answers with a page, to clients that ask for JSON with that, and to those that ask for plain
    text with the sentence that clients of Ollama look for. All are public, and name no model."""
    config, accept = request.app[CONTEXT].config, request.headers.get("Accept", "")
    if accept.startswith("text/plain"):
        return web.Response(text=OLLAMA)
    if "application/json" in accept:
        told = {"ollama": OLLAMA, "server": config.fingerprint, "routes": shown_routes()}
        return json_response(told)
    if not config.has_page:
        raise ApiError(
            404, "This server was started with --no-ui and has no page.", "not_found_error"
        )
    return sent(request, INDEX)


async def part_of_page(request: web.Request) -> web.Response:
    """A file that the page is made of."""
    name = request.match_info["name"]
    if name not in NAMES:
        raise ApiError(404, f"The page has no file {name!r}.", "not_found_error")
    return sent(request, name)


def sent(request: web.Request, name: str) -> web.Response:
    """Returns a file of the page, or a 304 to a browser that has it."""
    file = page_file(name)
    if any(tag.value == file.tag for tag in request.if_none_match or ()):
        response = web.Response(status=304, headers=HEADERS)
    else:
        response = web.Response(
            body=file.data, content_type=file.content_type, charset="utf-8", headers=HEADERS
        )
    response.etag = file.tag
    return response


async def left_by_others(request: web.Request) -> web.Response:
    """What a browser asks for that has seen another server's page here."""
    config = request.app[CONTEXT].config
    name = request.app[CONTEXT].route_of(request)
    if name == "/sw.js":
        return web.Response(text=SERVICE_WORKER, content_type="text/javascript")
    if name == "/manifest.webmanifest":
        manifest = {"name": "dllama", "start_url": f"{config.prefix}/", "display": "browser"}
        return json_response(manifest)
    return json_response({"version": config.fingerprint})


ROUTES = (
    Route("POST", ("/v1/chat/completions", "/chat/completions"),
          chat.chat_completions, "chat, streamed or whole"),
    Route("POST", ("/v1/completions",),
          chat.completions, "continue a text, streamed or whole"),
    Route("POST", ("/v1/responses", "/responses"),
          responses.create, "OpenAI's Responses API"),
    Route("POST", ("/v1/messages",),
          chat.messages, "Anthropic's Messages API"),
    Route("POST", ("/v1/messages/count_tokens",),
          chat.messages_count_tokens, "tokens of such a request"),
    Route("POST", ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"),
          chat.chat_input_tokens, "tokens of a chat"),
    Route("POST", ("/v1/responses/input_tokens", "/responses/input_tokens"),
          responses.input_tokens, "tokens of a request for a response"),
    Route("GET", ("/v1/responses/{id}",),
          responses.retrieve, "a stored response"),
    Route("DELETE", ("/v1/responses/{id}",),
          responses.remove, "forget a stored response"),
    Route("GET", ("/v1/stream",),
          streams.resume, "an answer's bytes again, then live: ?conv_id=ID&from=0"),
    Route("DELETE", ("/v1/stream",),
          streams.end, "end the answer of a conversation: ?conv_id=ID"),
    Route("POST", ("/v1/streams/lookup",),
          streams.lookup, 'streams that are kept: {"conversation_ids": ["..."]}'),
    Route("POST", ("/v1/embeddings",),
          embeddings.openai_embeddings, 'texts as vectors: {"input": "..."}'),
    Route("POST", ("/embedding", "/embeddings"),
          embeddings.native_embeddings, "texts as vectors, as llama-server answers"),
    Route("POST", ("/completion", "/completions"),
          native.completion, "llama-server's own completion"),
    Route("POST", ("/infill",),
          native.infill, "the middle between `input_prefix` and `input_suffix`"),
    Route("POST", ("/api/chat",),
          ollama.chat, "Ollama's chat, in lines of JSON or whole"),
    Route("POST", ("/api/generate",),
          ollama.generate, "Ollama's answer to a prompt, in lines of JSON or whole"),
    Route("POST", ("/api/embed",),
          ollama_embeddings.new_embeddings, "texts as vectors, as Ollama answers"),
    Route("POST", ("/api/embeddings",),
          ollama_embeddings.old_embeddings, "a text as a vector, as Ollama did before"),
    Route("GET", ("/api/tags",),
          ollama.tags, "the models served here, as Ollama lists them"),
    Route("GET", ("/api/ps",),
          ollama.ps, "the models that are loaded, as Ollama lists them"),
    Route("POST", ("/api/show",),
          ollama.show, 'one of them: {"model": "..."}'),
    Route("GET", ("/api/version",),
          ollama.version, "the version of Ollama whose API this is"),
    Route("POST", ("/api/pull",),
          pulling.pull, 'download a model, told in lines of JSON: {"model": "qwen3:0.6b"}'),
    Route("DELETE", ("/api/delete",),
          pulling.delete, 'remove a model that was downloaded: {"model": "..."}'),
    Route("POST", ("/api/push", "/api/create", "/api/copy", "/api/blobs/{digest}"),
          ollama.no_management, "Ollama's making of models: a 501"),
    Route("POST", ("/v1/models/pull", "/models/pull"),
          tasks.pull, 'download a model: {"model": "hf.co/USER/REPO:QUANT"}'),
    Route("GET", ("/v1/models/pull", "/models/pull"),
          tasks.list_tasks, "the downloads, and how they stand"),
    Route("DELETE", ("/v1/models/pull", "/models/pull"),
          tasks.stop, 'stop a download: {"taskId": "..."}'),
    Route("GET", ("/events", "/v1/events"),
          events.events, "events of all downloads, over a WebSocket or as server-sent events"),
    Route("GET", ("/v1/models", "/models"),
          models.list_models, "the models served here"),
    Route("POST", ("/models", "/v1/models"),
          llama_server.begin,
          'download a model, as llama-server does: {"model": "USER/REPO:QUANT"}'),
    Route("DELETE", ("/models", "/v1/models"),
          llama_server.remove, "remove a model that was downloaded: ?model=NAME"),
    Route("POST", ("/models/load", "/v1/models/load"),
          router.load, 'load one of several models: {"model": "..."}'),
    Route("POST", ("/models/unload", "/v1/models/unload"),
          router.unload, 'unload it: {"model": "..."}'),
    Route("GET", ("/models/sse", "/v1/models/sse"),
          router.events, "what becomes of several models, as server-sent events"),
    Route("GET", ("/v1/models/{name:.+}", "/models/{name:.+}"),
          models.one_model, "one of them"),
    Route("GET", ("/props",),
          models.props, "the model's properties and the server's defaults"),
    Route("POST", ("/props",),
          models.set_props, "taken with --props, and sets nothing"),
    Route("GET", ("/slots",),
          slots.slots, "what runs now"),
    Route("POST", ("/slots/{id}",),
          slots.slot_action, "save, restore or erase a slot's session: ?action=save"),
    Route("POST", ("/sessions/{name}",),
          slots.session_action, "save, restore or erase a session: ?action=save"),
    Route("GET", ("/metrics",),
          metrics.metrics, "counters for Prometheus"),
    Route("GET", ("/health", "/v1/health"),
          models.health, "200 once the model serves: for a balancer", is_public=True),
    Route("GET", ("/live",),
          models.live, "200 until only another start helps: for a supervisor", is_public=True),
    Route("GET", ("/stats",),
          models.stats, "speed, memory and the share of each node"),
    Route("GET", ("/cluster/nodes",),
          nodes.list_nodes, "the nodes: state, share, memory, and why one is not used"),
    Route("POST", ("/cluster/nodes",),
          nodes.add_node, 'take a worker in: {"address": "host:9998", "share": 1.0}'),
    Route("DELETE", ("/cluster/nodes", "/cluster/nodes/{address}"),
          nodes.remove_node, "go on without a worker: ?address=host:9998"),
    Route("POST", ("/tokenize",),
          text.tokenize, 'ids of a text: {"content": "..."}'),
    Route("POST", ("/detokenize",),
          text.detokenize, 'text of ids: {"tokens": [...]}'),
    Route("POST", ("/apply-template",),
          text.apply_template, 'the prompt of a chat: {"messages": [...]}'),
    Route("GET", ("/lora-adapters",),
          models.no_adapters, "LoRA adapters: always none"),
    Route("GET", ("/",),
          index, "the page; this list as JSON with `Accept: application/json`", is_public=True),
    Route("GET", ("/page/{name}",),
          part_of_page, "files of the page", is_public=True),
    Route("GET", ("/sw.js", "/manifest.webmanifest", "/_app/version.json"),
          left_by_others, "what another server's page left browsers asking for", is_public=True),
)  # fmt: skip

PUBLIC_PATHS = frozenset(
    [path for route in ROUTES if route.is_public for path in route.paths]
    + [f"/page/{name}" for name in NAMES]
)
"""As requests have them."""

RERANK = "rank texts: no model it runs was trained for that"
AUDIO = "hear: no model it runs takes sound"
# Routes of other servers that this one has not, answered with a sentence instead of a 404.
UNSUPPORTED = {
    "/rerank": RERANK, "/reranking": RERANK, "/v1/rerank": RERANK, "/v1/reranking": RERANK,
    "/audio/transcriptions": AUDIO, "/v1/audio/transcriptions": AUDIO,
    "/v1/audio/speech": "speak: no model it runs makes sound",
    "/v1/images/generations": "draw: no model it runs makes images",
    "/v1/moderations": "judge texts: no model it runs was trained for that",
    "/lora-adapters": "load adapters: merge a LoRA adapter into the model file",
    "/v1/chat/completions/control": (
        "end the thoughts of an answer that is written: ask for none with `enable_thinking`: false"
    ),
}  # fmt: skip


async def not_supported(request: web.Request) -> web.StreamResponse:
    path = request.app[CONTEXT].route_of(request)
    raise ApiError(
        501, f"This server does not {UNSUPPORTED[path]}.", "not_supported_error",
        code="not_supported",
    )  # fmt: skip


# Features of llama-server that are always off here, answered as it answers where they are.
DISABLED = {
    "/cors-proxy": "calls no other servers for web pages; let the page call them itself",
    "/tools": "runs no tools; clients run their own",
}


async def disabled(request: web.Request) -> web.StreamResponse:
    path = request.app[CONTEXT].route_of(request)
    raise ApiError(403, f"This server {DISABLED[path]}.", "feature_disabled")


def shown_routes() -> dict[str, str]:
    """The routes by method and first path, and what each is about."""
    return {f"{r.method} {r.paths[0].replace(':.+', '')}": r.about for r in ROUTES}


def served_routes(prefix: str = "") -> list[web.RouteDef]:
    """The routes of the table, for aiohttp, all under `prefix`."""
    make = {"GET": web.get, "POST": web.post, "DELETE": web.delete}
    return [
        make[route.method](prefix + path, route.handler) for route in ROUTES for path in route.paths
    ]


def unsupported_routes(prefix: str = "") -> list[web.RouteDef]:
    refused = [web.post(prefix + path, not_supported) for path in UNSUPPORTED]
    for path in DISABLED:
        refused += [make(prefix + path, disabled) for make in (web.get, web.post)]
    return refused
