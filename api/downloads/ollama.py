"""Ollama's routes of model files: pull one and hear of it in the same answer, and remove one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.downloads.llama_server import asked_model
from api.downloads.service import DOWNLOADS, downloads_of
from api.replies.client_sink import ClientSink
from api.replies.event_stream import NDJSON, Json, ReaderGone
from api.requests.fields import Field, boolean, string
from dllama.errors import HubError
from dllama.hub.downloads import Downloads
from dllama.hub.removal import remove_model
from dllama.hub.task import DownloadTask, Event, EventType

NAME = Field(("model", "name"), string, None)
STREAM = Field(("stream",), boolean, True)


async def pull(request: web.Request) -> web.StreamResponse:
    """Downloads a model while the client stays; when it leaves, the download ends, unless others
    want it too."""
    config = request.app[CONTEXT].config
    body = await read_object(request, config)
    name, is_streamed = asked_model(NAME.of(body)), STREAM.of(body)
    downloads = downloads_of(request)
    task = await downloads.pull(name)
    with downloads.following(task):
        if not is_streamed:
            return await answer_whole(downloads, task)
        sink = ClientSink(request, config, NDJSON)
        await sink.open()
        try:
            await sink.write(line({"status": "pulling manifest"}))
            async for event in until_over(downloads, task):
                await sink.write(b"".join(line(told) for told in statuses(event)))
            await sink.close()
        except ReaderGone:
            pass
        return sink.response


async def answer_whole(downloads: Downloads, task: DownloadTask) -> web.Response:
    """Answers when the download is over. Raises HubError with its reason."""
    async for event in until_over(downloads, task):
        if event.type is EventType.SUCCESS:
            return json_response({"status": "success"})
    raise HubError(task.error or f"The download of {task.id} was stopped.")


async def until_over(downloads: Downloads, task: DownloadTask) -> AsyncIterator[Event]:
    """Yields the events of a task, to its last one."""
    with downloads.reader() as reader:
        is_over = task.is_over
        if is_over:  # before there was a reader
            yield task.last_event()
        while not is_over:
            for event in await reader.wait():
                if event.task_id == task.id:
                    yield event
                    is_over = is_over or event.is_last


def statuses(event: Event) -> list[Json]:
    """Returns what Ollama's clients are told about an event."""
    if event.type is EventType.ERROR:
        return [{"error": event.task["error"]}]
    if event.type is EventType.STOPPED:
        return [{"error": f"the download of {event.task_id} was stopped"}]
    items = event.task["items"]
    assert isinstance(items, list)
    found: list[Json] = []
    for item in items:
        digits = str(item["checksum"]).rpartition(":")[2]
        told: Json = {"status": f"pulling {digits[:12]}", "digest": f"sha256:{digits}"}
        found.append(told | {"total": item["bytes"], "completed": item["downloadedBytes"]})
    if event.type is EventType.SUCCESS:
        ends = ("verifying sha256 digest", "writing manifest", "success")
        found += [{"status": text} for text in ends]
    return found


async def delete(request: web.Request) -> web.Response:
    """Removes a model from the server's machine."""
    body = await read_object(request, request.app[CONTEXT].config)
    settings = downloads_of(request).settings
    await asyncio.to_thread(remove_model, settings, asked_model(NAME.of(body)))
    await request.app[DOWNLOADS].models_changed()
    return web.Response()


def line(told: Json) -> bytes:
    return orjson.dumps(told) + b"\n"
