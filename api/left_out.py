"""Tells what of a request its answer does not follow: the client in a header, the log once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from urllib.parse import quote

from aiohttp import web

from dllama.errors import RequestError

log = logging.getLogger(__name__)

HEADER = "X-Dllama-Ignored"
NAMES = web.RequestKey("NAMES", list[str])  # kept until the response begins
MAX_SHOWN = 20  # in a header
MAX_LOGGED = 100  # different names in the life of a server: clients may invent them


class LeftOut:
    """What becomes of fields, tools and the like that the server cannot honour: with `is_strict`
    they are refused."""

    def __init__(self, *, is_strict: bool) -> None:
        self._is_strict = is_strict
        self._logged: set[str] = set()

    def tell(self, request: web.Request, names: Sequence[str]) -> None:
        """Has the names told in the response. Raises RequestError for the first if the server is
        strict."""
        if not names:
            return
        if self._is_strict:
            raise RequestError(
                f"{request.path} cannot honour `{names[0]:.100}`, and this server was started with "
                "--strict-fields; leave it out.",
                param=names[0][:100],
            )
        request[NAMES] = [*request.get(NAMES, ()), *names]
        for name in names:
            kind = name.partition(":")[2] or name  # a tool's type, wherever it stood
            if kind not in self._logged and len(self._logged) < MAX_LOGGED:
                self._logged.add(kind)
                log.warning(
                    "%s: left out %r, which this server does not know or cannot do; this is said "
                    "once", request.path, name[:200],
                )  # fmt: skip


async def add_left_out_header(request: web.Request, response: web.StreamResponse) -> None:
    """Names what was left out, in every response, streams too."""
    names = request.get(NAMES)
    if names:
        response.headers[HEADER] = shown(names)


def shown(names: Sequence[str]) -> str:
    """Returns names as a header may hold them."""
    unique = list(dict.fromkeys(names))
    told = [quote(name, safe="[]:/._-$")[:100] for name in unique[:MAX_SHOWN]]
    more = len(unique) - MAX_SHOWN
    return ", ".join(told) + (f", and {more} more" if more > 0 else "")
