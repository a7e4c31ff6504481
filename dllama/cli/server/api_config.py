"""From the settings of the command line to the configuration of the HTTP server."""

from __future__ import annotations

from api.config import AnswerDefaults, ApiConfig, VertexRoutes
from api.requests.generation import parse_common
from dllama.cli.flags.settings import RequestDefaults, ServerSettings
from dllama.errors import ConfigError, RequestError
from dllama.requests import SamplingParams


def answer_defaults(
    defaults: RequestDefaults, sampling: SamplingParams | None = None
) -> AnswerDefaults:
    """Returns what the flags make of a request that says nothing; `sampling` is the model's own.
    Raises ConfigError where they set a field of requests to what no request may say."""
    try:
        parse_common(defaults.fields, max_tokens=None)
    except RequestError as error:
        raise ConfigError(
            f"A flag about what requests mean by default is wrong: {error}"
        ) from error
    return AnswerDefaults(
        sampling=sampling or SamplingParams(),
        fields=defaults.fields,
        n_predict=defaults.n_predict,
        prefills=defaults.prefills,
        pooling=defaults.pooling or "mean",
        embd_normalize=defaults.embd_normalize,
    )


def api_config(server: ServerSettings, vertex: VertexRoutes | None = None) -> ApiConfig:
    """Returns the configuration of the HTTP server."""
    return ApiConfig(
        api_keys=server.api_keys,
        cors_origins=server.cors_origins,
        max_body_bytes=server.max_body_mb << 20,
        strict_fields=server.strict_fields,
        prefix=server.api_prefix,
        vertex=vertex,
        body_timeout_s=server.timeout_s,
        stall_timeout_s=server.timeout_s,
        ping_s=server.ping_s,
        shows_slots=server.shows_slots,
        takes_props=server.takes_props,
        has_page=server.has_page,
        is_verbose=server.is_verbose,
    )
