"""Cortex's routes of downloads: begin one, look at them, stop one."""

from __future__ import annotations

from aiohttp import web

from api.body import json_response, read_object
from api.context import CONTEXT
from api.downloads.llama_server import asked_model
from api.downloads.service import downloads_of
from api.errors import ApiError
from api.requests.fields import Field, string
from api.requests.generation import MODEL
from api.requests.verdicts import check_fields
from dllama.errors import RequestError

TASK_ID = Field(("taskId", "task_id", "id"), string, None)


async def pull(request: web.Request) -> web.Response:
    """Answers once the hub has said which files there are; they come while the client is away."""
    context = request.app[CONTEXT]
    body = await read_object(request, context.config)
    context.left_out.tell(request, check_fields(body, (MODEL,), request.path))
    task = await downloads_of(request).pull(asked_model(MODEL.of(body)))
    task.is_kept = True
    return json_response({"message": "Model start downloading!", "task": task.as_json()})


async def list_tasks(request: web.Request) -> web.Response:
    """The downloads that wait and run, and the last of those that are over."""
    tasks = downloads_of(request).tasks()
    return json_response({"object": "list", "data": [task.as_json() for task in tasks]})


async def stop(request: web.Request) -> web.Response:
    """Answers when the download is stopped, also one that waits."""
    task_id = request.query.get("taskId")
    if task_id is None and request.can_read_body:
        task_id = TASK_ID.of(await read_object(request, request.app[CONTEXT].config))
    if not task_id:
        raise RequestError(
            '`taskId` is missing; send a body like {"taskId": "hf.co/USER/REPO:Q4_K_M"}.',
            param="taskId",
        )
    task = downloads_of(request).stop(task_id)
    if task is None:
        raise ApiError(
            404,
            f"Task not found: no download {task_id!r:.200} waits or runs; GET /models/pull lists "
            "them.",
            "not_found_error",
            param="taskId",
        )
    return json_response({"message": "Download stopped successfully", "taskId": task.id})
