"""The page that browsers see at GET /, and the files it is made of (api/page). Nothing of it comes
from anywhere else, and it may neither load nor run anything from anywhere else.

Beside it is a file for which a browser still asks that has seen llama-server's page at this
address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "page"
INDEX = "index.html"
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
NAMES = tuple(sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES))

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}
# That page has left a worker in the browser, which would go on showing it instead of this one.
SERVICE_WORKER = """self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', async () => {
  await self.registration.unregister();
  for (const name of await caches.keys()) await caches.delete(name);
  for (const client of await self.clients.matchAll()) client.navigate(client.url);
});
"""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is sent. The tag changes with its bytes."""

    data: bytes
    content_type: str
    tag: str


@cache
def page_file(name: str) -> PageFile:
    """Returns one of NAMES."""
    path = FOLDER / name
    data = path.read_bytes()
    return PageFile(data, TYPES[path.suffix], hashlib.sha256(data).hexdigest()[:16])
