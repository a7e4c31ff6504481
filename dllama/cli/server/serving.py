"""Serves one model: the HTTP server, and the engine's process beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace

from api.app import build_app
from api.downloads.service import DownloadService
from api.engines.zmq_client import ZmqEngineClient
from api.http.listener import tls_context
from api.http.serve import serve
from api.http.spans import installed_spans
from api.models.fixed import FixedModels
from api.sleep import IdleSleep
from dllama.cli.flags.root import read_flags
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.flags.vertex import at_vertex_port, vertex_of
from dllama.cli.model_file import open_source
from dllama.cli.server.api_config import api_config
from dllama.cli.server.model_facts import served_model, served_name
from dllama.cli.server.supervisor import EngineSupervisor
from dllama.cli.terminal.output import loading, note
from dllama.errors import ConfigError
from dllama.host.descriptors import check_free, raise_limit
from dllama.host.temporary import socket_folder
from dllama.hub.downloads import Downloads
from dllama.logs.settings import LogSettings

ROOT_DESCRIPTORS = 20  # sockets of the server and of ZeroMQ, files, and a few connections


def downloads() -> Downloads:
    """Returns the downloads that the environment asks for. Raises ConfigError."""
    from dllama.hub.settings import hub_settings  # what most servers never need

    return Downloads(hub_settings())


async def watch_loading(client: ZmqEngineClient, label: str) -> None:
    """Shows the progress of loading until the engine is ready or has failed."""
    with loading(label) as report:
        while client.state.state == "loading":
            report(client.state.progress, client.state.detail)
            await asyncio.sleep(0.1)


async def run_server(
    engine: EngineSettings,
    server: ServerSettings,
    logs: LogSettings,
    started: subprocess.Popen[bytes] | None,
) -> int:
    """Serves until a signal. Raises ConfigError and file errors before it listens."""
    vertex = vertex_of(os.environ)
    if vertex is not None:
        server = at_vertex_port(server, os.environ)
    tls = tls_context(server.ssl_cert_file, server.ssl_key_file)
    engine = replace(engine, tokenizer=str(server.tokenizer) if server.tokenizer else None)
    with socket_folder("dllama-", "engine") as folder:
        endpoint = f"ipc://{folder}/engine"
        client = ZmqEngineClient(endpoint, bind=True, max_recover_s=engine.max_recover_s)
        open_source(engine).close()  # a file that cannot be served is told here, and once
        named = replace(engine, name=served_name(engine, server))
        supervisor = EngineSupervisor(named, endpoint, client, logs, started)
        supervisor.begin()
        model = served_model(engine, server, client)
        sleep = (
            None
            if server.sleep_idle_s is None
            else IdleSleep(client, supervisor, server.sleep_idle_s)
        )
        app = build_app(
            FixedModels([model], sleep),
            api_config(server, vertex),
            DownloadService(downloads),
            installed_spans(),
        )
        stop = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def announce(url: str) -> None:
            await watch_loading(client, f"loading {model.id}")
            if client.state.state == "failed":
                stop.set()
            else:
                note(f"{model.id} is served at {url}/v1 (health: {url}/health, nodes: {url}/stats)")

        def on_ready(url: str) -> None:
            tasks.append(asyncio.create_task(supervisor.run()))
            tasks.append(asyncio.create_task(announce(url)))

        try:
            await serve(
                app, server.hosts, server.port, tls=tls, stop=stop, on_ready=on_ready,
                drain_s=server.drain_s,
            )  # fmt: skip
        finally:
            failed = client.state.detail if client.state.state == "failed" else ""
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if failed:
            raise ConfigError(failed)
        return 0


def serve_model(words: Sequence[str], started: subprocess.Popen[bytes] | None) -> int:
    """Serves the model that the command line asks for, or several, until a signal. `started` is an
    engine process that waits for its instructions. Raises ConfigError and file errors before it
    listens."""
    flags = read_flags(words)
    raise_limit()
    check_free(ROOT_DESCRIPTORS, "dllama-root")
    if flags.router is not None:
        from dllama.cli.router.serving import run_router

        return asyncio.run(run_router(flags, flags.router, started))
    return asyncio.run(run_server(flags.engine, flags.server, flags.logs, started))
