"""Asks the hub which files a repository has, and how large and of which digest each is."""

from __future__ import annotations

import asyncio
import json
from pathlib import PurePosixPath
from urllib.parse import quote

from dllama.errors import HubError, NotOnHub
from dllama.hub.answers import Passing, refusal, version_of
from dllama.hub.checksum import Checksum, Digest
from dllama.hub.names import HubName, ModelName, UrlName, is_safe_path
from dllama.hub.patience import Patience
from dllama.hub.repository import RemoteFile, Selection, choose
from dllama.hub.settings import HubSettings
from dllama.hub.web import Web
from dllama.hub.web_rules import without_query

MAX_ANSWER_BYTES = 32 << 20
MAX_FILES = 10_000
MAX_FILE_BYTES = 1 << 44  # 16 TB
MODEL_ENDINGS = (".gguf", ".m")
_TRIES = 3  # somebody waits for the answer


async def look_up(web: Web, settings: HubSettings, name: ModelName) -> Selection:
    """Returns the files that a name stands for. Raises NotOnHub where there are none, HubError
    where the hub cannot be asked."""
    patience = Patience(_TRIES, settings.first_wait_s, settings.max_wait_s)
    while True:
        try:
            if isinstance(name, UrlName):
                return await _of_url(web, name)
            return await _of_repository(web, settings, name)
        except Passing as trouble:
            wait_s = patience.after_failure(0)
            if wait_s is None:
                raise HubError(
                    f"The hub cannot be asked for {name}: {trouble}. Try again later, or set "
                    "HF_ENDPOINT to a mirror."
                ) from trouble
            await asyncio.sleep(wait_s)


async def _of_repository(web: Web, settings: HubSettings, name: HubName) -> Selection:
    revision = quote(name.revision, safe="")
    url = f"{settings.endpoint}/api/models/{name.repo}/revision/{revision}?blobs=true"
    async with web.get(url, {"Accept": "application/json"}) as response:
        if response.status != 200:
            raise refusal(f"The model {name.repo}", response.status, response.headers)
        body = bytearray()
        async for data in response.content.iter_any():
            body += data
            if len(body) > MAX_ANSWER_BYTES:
                raise HubError(f"The hub's list of {name.repo} has more than {len(body)} bytes.")
    commit, files = read_listing(bytes(body), name, settings.endpoint)
    return choose(name, commit, files)


def read_listing(body: bytes, name: HubName, endpoint: str) -> tuple[str, list[RemoteFile]]:
    """Returns the commit and the files of the hub's answer about a repository; files whose paths
    are not safe, or whose sizes are missing, are left out. Raises HubError."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    rows = told.get("siblings") if isinstance(told, dict) else None
    commit = told.get("sha") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not isinstance(commit, str) or not commit.isalnum():
        raise HubError(
            f"What answers at {without_query(endpoint)} is no hub: it sends no list of files for "
            f"{name.repo}."
        )
    files = [_file(row, commit, name, endpoint) for row in rows[:MAX_FILES]]
    return commit[:64], [file for file in files if file is not None]


def _file(row: object, commit: str, name: HubName, endpoint: str) -> RemoteFile | None:
    if not isinstance(row, dict):
        return None
    path, size = row.get("rfilename"), row.get("size")
    stored = row.get("lfs")
    if isinstance(stored, dict):
        size = stored.get("size", size)
        checksum = Checksum.of(Digest.SHA256, stored.get("sha256") or stored.get("oid"))
    else:
        checksum = Checksum.of(Digest.GIT, row.get("blobId"))
    if not isinstance(path, str) or not is_safe_path(path) or not isinstance(size, int):
        return None
    if checksum is None or not 0 <= size <= MAX_FILE_BYTES:
        return None
    url = f"{endpoint}/{name.repo}/resolve/{commit}/{quote(path)}"
    return RemoteFile(path, size, url, checksum)


async def _of_url(web: Web, name: UrlName) -> Selection:
    """Asks for one byte, whose answer says how many there are."""
    if PurePosixPath(name.file).suffix.lower() not in MODEL_ENDINGS:
        raise NotOnHub(
            f"{without_query(name.url)} is no model file by its name; a URL has to end with "
            f"{' or '.join(MODEL_ENDINGS)}."
        )
    asked = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    async with web.get(name.url, asked) as response:
        if response.status not in (200, 206):
            raise refusal(without_query(name.url), response.status, response.headers)
        told = response.headers.get("Content-Range", "").rpartition("/")[2]
        if response.status == 200:
            told = response.headers.get("Content-Length", "")
        version = version_of(response.headers)
    size = int(told) if told.isascii() and told.isdigit() and len(told) < 20 else -1
    if not 0 < size <= MAX_FILE_BYTES:
        raise HubError(f"{without_query(name.url)} does not say how many bytes it has.")
    checksum = Checksum.of(Digest.SHA256, name.sha256)
    file = RemoteFile(name.file, size, name.url, checksum, version)
    return Selection(without_query(name.url), name.folder, (file,), name.file)
