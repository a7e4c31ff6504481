"""Request bodies in and answers out, as JSON."""

from __future__ import annotations

import asyncio
import re
from codecs import BOM_UTF8
from contextvars import ContextVar

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from api.config import ApiConfig
from api.context import CONTEXT
from api.errors import ApiError, body_too_large
from api.requests.answer_format import FLAG_FORMS
from api.requests.fields import Body
from api.requests.generation import MODEL
from dllama.errors import RequestError

ORJSON_DEPTH = 254
MAX_DEPTH = 240  # what answers repeat of a request lies some levels deeper there
# The object of a request that came within another, which has been read; of the task alone that
# answers it.
GIVEN_BODY: ContextVar[Body | None] = ContextVar("GIVEN_BODY", default=None)

# Fields that say what an answer may be, of which a request has one at most.
ANY_FORM = (
    *FLAG_FORMS, "regex", "response_format", "guided_json", "guided_grammar", "guided_regex",
    "output_format", "tools",
)  # fmt: skip
FORM_WITHIN = ("output_config", "text")  # objects that say it by their `format`


async def read_request(request: web.Request) -> Body:
    """Returns the body of a request for an answer: what it does not say, or leaves null, is as the
    flags of its model have it. Raises as read_object, and ApiError where there is no such model."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    fields = context.models.defaults_of(MODEL.of(body)).fields
    if not fields:
        return body
    said = {name: value for name, value in body.items() if value is not None}
    within = (said.get(name) for name in FORM_WITHIN)
    has_form = any(name in said for name in ANY_FORM) or any(
        isinstance(one, dict) and one.get("format") is not None for one in within
    )
    assumed = {n: v for n, v in fields.items() if not (has_form and n in FLAG_FORMS)}
    return {**assumed, **said}


async def read_object(request: web.Request, config: ApiConfig) -> Body:
    """Returns the JSON object of a body. Raises RequestError, or ApiError 413 before reading too
    much."""
    given = GIVEN_BODY.get()
    if given is not None:
        return given
    if request.content_length is not None and request.content_length > config.max_body_bytes:
        raise body_too_large(config.max_body_bytes)
    try:
        async with asyncio.timeout(config.body_timeout_s):
            data = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise body_too_large(config.max_body_bytes) from None
    except TimeoutError:
        raise ApiError(
            408,
            f"The request body did not arrive within {config.body_timeout_s:g} s; send it again.",
        ) from None
    except (HttpProcessingError, web.RequestPayloadError, web.PayloadAccessError) as error:
        raise RequestError(f"The request body cannot be read: {error}.") from error
    value = parsed(data.removeprefix(BOM_UTF8))  # files that curl sends begin with it
    check_depth(value, data)
    if not isinstance(value, dict):
        raise RequestError(
            f"The request body must be a JSON object, but is a {type(value).__name__}."
        )
    return value


def parsed(data: bytes) -> object:
    """Returns the JSON of a body. Half a character, as JavaScript leaves it where a text is cut
    within a surrogate pair, becomes U+FFFD. Raises RequestError."""
    try:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            whole = mended(data)
            if whole is data:
                raise
            return orjson.loads(whole)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            f"The request body is not JSON ({error}); send a JSON object in UTF-8."
        ) from error


def mended(data: bytes) -> bytes:
    """Returns JSON with U+FFFD for every half of a surrogate pair."""
    return _PAIR_OR_HALF.sub(_whole_character, data) if _HALF.search(data) else data


def check_depth(value: object, data: bytes) -> None:
    """Raises RequestError for a body of more levels than templates and grammars can read."""
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    try:
        orjson.dumps(_deeper(value))  # refuses more levels, faster than a walk here
    except orjson.JSONEncodeError as error:
        raise RequestError(
            f"The request body is nested deeper than {MAX_DEPTH} levels; send less deep objects."
        ) from error


def _deeper(value: object) -> object:
    for _ in range(ORJSON_DEPTH - MAX_DEPTH):
        value = [value]
    return value


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# Another escape, so that an escaped backslash before a "u" is none; a pair; a half.
_PAIR_OR_HALF = re.compile(
    rb"\\[^u]|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|\\u[dD][89a-fA-F][0-9a-fA-F]{2}", re.DOTALL
)


def _whole_character(found: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if len(found[0]) == len(rb"\ud800") else found[0]


def json_response(
    value: object, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(value), status=status, headers=headers, content_type="application/json"
    )
