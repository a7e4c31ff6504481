"""The environment of a container on Google's Vertex AI."""

from __future__ import annotations

import pytest

from api.config import VertexRoutes
from dllama.cli.flags.settings import ServerSettings
from dllama.cli.flags.vertex import at_vertex_port, vertex_of
from dllama.errors import ConfigError


def test_it_says_where_to_listen() -> None:
    assert vertex_of({}) is None and vertex_of({"AIP_MODE": "OTHER"}) is None
    environ = {"AIP_MODE": "PREDICTION"}
    assert vertex_of(environ) == VertexRoutes("/predict", "")
    more = {"AIP_PREDICT_ROUTE": "v1/predict", "AIP_HEALTH_ROUTE": "/up", "AIP_HTTP_PORT": "8501"}
    assert vertex_of(environ | more) == VertexRoutes("/v1/predict", "/up")
    assert at_vertex_port(ServerSettings(port=9000), environ | more).port == 8501
    assert at_vertex_port(ServerSettings(port=9000), environ).port == 8080
    for wrong in ("0", "70000", "http", "-1", "8_0"):
        with pytest.raises(ConfigError, match="AIP_HTTP_PORT"):
            at_vertex_port(ServerSettings(), {"AIP_HTTP_PORT": wrong})
