"""Serves many models: the HTTP server, and an engine's process for each model that is loaded."""

from __future__ import annotations

import logging
import os
import subprocess

from api.app import build_app
from api.downloads.service import DownloadService
from api.http.listener import tls_context
from api.http.serve import serve
from api.http.spans import installed_spans
from api.models.pool import ModelPool
from api.models.residents import Limits
from dllama.cli.flags.root import RootFlags
from dllama.cli.flags.router import RouterSettings
from dllama.cli.flags.vertex import at_vertex_port, vertex_of
from dllama.cli.router.free_memory import free_memory
from dllama.cli.router.model_list import ModelList
from dllama.cli.router.model_source import CliModelSource
from dllama.cli.server.api_config import api_config
from dllama.cli.terminal.output import count_of, note
from dllama.errors import ConfigError
from dllama.host.temporary import socket_folder
from dllama.hub.downloads import Downloads
from dllama.hub.settings import hub_settings

log = logging.getLogger(__name__)


def downloads() -> Downloads:
    """Returns the downloads that the environment asks for. Raises ConfigError."""
    return Downloads(hub_settings())


async def run_router(
    flags: RootFlags, router: RouterSettings, started: subprocess.Popen[bytes] | None
) -> int:
    """Serves until a signal. Raises ConfigError before it listens."""
    server, vertex = flags.server, vertex_of(os.environ)
    if vertex is not None:
        server = at_vertex_port(server, os.environ)
    tls = tls_context(server.ssl_cert_file, server.ssl_key_file)
    memory_bytes = router.memory_bytes or free_memory(flags.engine)
    with socket_folder("dllama-", "engine-00000") as folder:
        source = CliModelSource(
            ModelList(router, flags.words, hub_settings),
            folder, memory_bytes, flags.logs, started,
        )  # fmt: skip
        limits = Limits(router.max_models, memory_bytes)
        pool = ModelPool(source.entries(), source, limits, autoloads=router.autoloads)
        check_startup(pool, limits)

        def on_ready(url: str) -> None:
            note(
                f"{count_of(len(pool.entries()), 'model')} at {url}/v1 (list: {url}/models; "
                f"{memory_bytes / 1e9:.1f} GB for those that are loaded)"
            )

        service = DownloadService(downloads, pool)
        app = build_app(pool, api_config(server, vertex), service, installed_spans())
        try:
            await serve(
                app, server.hosts, server.port, tls=tls, on_ready=on_ready, drain_s=server.drain_s
            )
        finally:
            source.close()
    return 0


def check_startup(pool: ModelPool, limits: Limits) -> None:
    """Raises ConfigError where more models are to be loaded at the start than may be at once."""
    n = sum(entry.loads_on_startup for entry in pool.entries())
    if limits.max_models and n > limits.max_models:
        raise ConfigError(
            f"{n} models have load-on-startup, and --models-max is {limits.max_models}; raise it, "
            "or take the key away from some."
        )
