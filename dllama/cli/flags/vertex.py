"""The environment of a container on Google's Vertex AI, which says where to listen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from api.config import VertexRoutes
from dllama.cli.flags.settings import ServerSettings
from dllama.errors import ConfigError

log = logging.getLogger(__name__)

DEFAULT_PORT = 8080
DEFAULT_PREDICT = "/predict"


def vertex_of(environ: Mapping[str, str]) -> VertexRoutes | None:
    """Returns the routes that the environment asks for, None outside of Vertex AI."""
    if environ.get("AIP_MODE") != "PREDICTION":
        return None
    predict, health = environ.get("AIP_PREDICT_ROUTE", ""), environ.get("AIP_HEALTH_ROUTE", "")
    return VertexRoutes(_path(predict) or DEFAULT_PREDICT, _path(health))


def at_vertex_port(server: ServerSettings, environ: Mapping[str, str]) -> ServerSettings:
    """Returns the settings with the port that Vertex AI asks at. Raises ConfigError if it is
    none."""
    told = environ.get("AIP_HTTP_PORT") or str(DEFAULT_PORT)
    if not (told.isascii() and told.isdigit() and 0 < int(told) < 65536):
        raise ConfigError(f"AIP_HTTP_PORT is {told!r}, which is no port from 1 to 65535; mend it.")
    if int(told) != server.port:
        log.warning("Vertex AI asks at the port %s (AIP_HTTP_PORT), not %d", told, server.port)
    return replace(server, port=int(told))


def _path(told: str) -> str:
    return f"/{told.removeprefix('/')}" if told else ""
