"""The page that browsers see at GET /: what the server is, and its routes. It loads nothing; beside
it are files for which a browser still asks that has seen llama-server's page at this address."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from api.config import ApiConfig

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>dllama</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 50em;
padding: 0 1em }} td {{ padding: 0 1.5em 0 0; vertical-align: top }}</style>
<h1>dllama</h1>
<p>This server ({server}) answers over HTTP. Point a client of OpenAI, Anthropic or llama-server at
<code>{prefix}/v1</code>.</p>
<table>
{rows}
</table>
</html>
"""
# That page has left a worker in the browser, which would go on showing it instead of this one.
SERVICE_WORKER = """self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', async () => {
  await self.registration.unregister();
  for (const name of await caches.keys()) await caches.delete(name);
  for (const client of await self.clients.matchAll()) client.navigate(client.url);
});
"""
ROW = "<tr><td><code>{route}</code><td>{about}"


def page(config: ApiConfig, routes: Mapping[str, str]) -> str:
    """Returns the page as HTML; `routes` are told with a sentence each."""
    rows = [ROW.format(route=escape(route), about=escape(about)) for route, about in routes.items()]
    return PAGE.format(
        server=escape(config.fingerprint), prefix=escape(config.prefix), rows="\n".join(rows)
    )
