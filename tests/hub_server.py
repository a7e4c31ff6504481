"""A hub on loopback, over real HTTP: the routes that models are downloaded by, with ranges, and on
request slow, broken and lying answers."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 16384


@dataclass(frozen=True)
class Trouble:
    """What one answer has instead of being right."""

    status: int = 0  # answers with that alone
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None  # bytes of the body, and the connection ends
    is_whole: bool = False  # sends the whole file, whatever was asked for
    content: bytes | None = None  # sends another file
    hangs: bool = False  # sends nothing
    redirect: str = ""  # sends elsewhere


@dataclass
class Seen:
    """A request that came."""

    path: str
    range: str
    authorization: str
    host: str


class HubServer:
    """Repositories by name, each with files by path. Files of LARGE bytes and more lie behind a
    redirect, with a SHA-256, as the hub's do."""

    LARGE = 4096

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.troubles: dict[str, deque[Trouble]] = defaultdict(deque)  # by path, one an answer
        self.always: dict[str, Trouble] = {}  # by path
        self.lies: dict[str, bytes] = {}  # of which content the metadata tells, by path
        self.seen: list[Seen] = []
        self.secret = ""  # a token without which nobody is let in
        self.pace_s = 0.0  # between two pieces of CHUNK bytes
        self.url = ""
        self.cdn = ""  # where large files are; "" for here
        self.n_open = self.most_open = 0

    def add(self, repo: str, **files: bytes) -> None:
        self.repos[repo] = files

    def requests_of(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.endswith(path)]

    # ---- routes
    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models/{user}/{repo}/revision/{revision}", self._listing)
        app.router.add_get("/{user}/{repo}/resolve/{revision}/{path:.+}", self._resolve)
        app.router.add_get("/cdn/{user}/{repo}/{path:.+}", self._cdn)
        return app

    def _note(self, request: web.Request) -> None:
        self.seen.append(
            Seen(
                request.path, request.headers.get("Range", ""),
                request.headers.get("Authorization", ""), request.host,
            )
        )  # fmt: skip

    def _files(self, request: web.Request) -> dict[str, bytes]:
        is_known = not self.secret or request.headers.get("Authorization", "").endswith(self.secret)
        repo = f"{request.match_info['user']}/{request.match_info['repo']}"
        if not is_known or repo not in self.repos:
            raise web.HTTPUnauthorized(headers={"X-Error-Code": "RepoNotFound"})
        return self.repos[repo]

    async def _listing(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        trouble = self._trouble("listing")
        if trouble.status:
            raise _refused(trouble)
        if trouble.content is not None:
            return web.Response(body=trouble.content)
        rows = [self._row(path, data) for path, data in self._files(request).items()]
        return web.json_response({"id": "x/y", "sha": COMMIT, "siblings": rows})

    def _row(self, path: str, data: bytes) -> dict[str, object]:
        data = self.lies.get(path, data)
        row: dict[str, object] = {"rfilename": path, "size": len(data)}
        if len(data) >= self.LARGE:
            row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        return row | {"blobId": blob.hexdigest()}

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        path = request.match_info["path"]
        files = self._files(request)
        if path not in files:
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        data = files[path]
        if len(data) < self.LARGE:
            return await self._send(request, path, data)
        trouble = self.always.get(path, Trouble())
        repo = f"{request.match_info['user']}/{request.match_info['repo']}"
        target = trouble.redirect or f"{self.cdn or self.url}/cdn/{repo}/{path}?signature=secret"
        return web.Response(status=302, headers={"Location": target, **_known(data)})

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        repo = f"{request.match_info['user']}/{request.match_info['repo']}"
        path = request.match_info["path"]
        return await self._send(request, path, self.repos[repo][path])

    def _trouble(self, path: str) -> Trouble:
        if self.troubles[path]:
            return self.troubles[path].popleft()
        return self.always.get(path, Trouble())

    async def _send(self, request: web.Request, path: str, data: bytes) -> web.StreamResponse:
        trouble = self._trouble(path)
        if trouble.status:
            raise _refused(trouble)
        data = data if trouble.content is None else trouble.content
        asked = request.headers.get("Range", "")
        tag = f'"{hashlib.sha256(data).hexdigest()}"'
        is_same = request.headers.get("If-Range", tag) == tag
        is_part = asked.startswith("bytes=") and is_same and not trouble.is_whole
        first, _, last = asked.removeprefix("bytes=").partition("-") if is_part else ("0", "", "")
        start, end = int(first), int(last) + 1 if last else len(data)
        if start >= len(data) and is_part:
            raise web.HTTPRequestRangeNotSatisfiable
        response = web.StreamResponse(status=206 if is_part else 200)
        response.content_length = end - start
        if is_part:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        response.headers.update(_known(data))
        response.headers["ETag"] = tag
        response.headers.update(trouble.headers)
        await response.prepare(request)
        self.n_open += 1
        self.most_open = max(self.most_open, self.n_open)
        try:
            await self._write(request, response, data[start:end], trouble)
        finally:
            self.n_open -= 1
        return response

    async def _write(
        self, request: web.Request, response: web.StreamResponse, body: bytes, trouble: Trouble
    ) -> None:
        if trouble.hangs:
            await asyncio.sleep(60)
        left = len(body) if trouble.cut_after is None else trouble.cut_after
        for at in range(0, len(body), CHUNK):
            piece = body[at : min(at + CHUNK, at + left)]
            await response.write(piece)
            left -= len(piece)
            if left <= 0 and trouble.cut_after is not None:
                await asyncio.sleep(0.01)  # let it arrive
                assert request.transport is not None
                request.transport.close()
                return
            if self.pace_s:
                await asyncio.sleep(self.pace_s)


def _known(data: bytes) -> dict[str, str]:
    """The headers that huggingface_hub reads."""
    return {
        "X-Repo-Commit": COMMIT,
        "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
        "X-Linked-Size": str(len(data)),
    }


def _refused(trouble: Trouble) -> web.HTTPException:
    error = web.HTTPInternalServerError(headers=trouble.headers)
    error.set_status(trouble.status)
    return error


@contextmanager
def hub_server(tls: ssl.SSLContext | None = None) -> Iterator[HubServer]:
    """Runs a hub in a thread of its own."""
    hub = HubServer()
    with serving_app(hub.app, tls) as url:
        hub.url = url
        yield hub


@contextmanager
def serving_app(
    make: Callable[[], web.Application], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serves an application in a thread of its own; yields its URL."""
    loop = asyncio.new_event_loop()
    is_up = threading.Event()
    urls: list[str] = []
    end = asyncio.Event()

    async def main() -> None:
        runner = web.AppRunner(make(), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        host, port = runner.addresses[0][:2]
        urls.append(f"http{'s' if tls else ''}://{host}:{port}")
        is_up.set()
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=partial(loop.run_until_complete, main()))
    thread.start()
    assert is_up.wait(20)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()
