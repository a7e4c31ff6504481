"""From exceptions to HTTP errors: one table, OpenAI's shape.

Every error answer is {"error": {"message", "type", "param", "code"}}; see `ApiError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dllama.errors import (
    ClusterError,
    DllamaError,
    EngineBusy,
    HubError,
    ModelNameError,
    NotOnHub,
    RequestError,
    TemplateError,
    TokenizerError,
)

LOST_RETRY_S = 2.0  # when to ask again after a node was lost: it is noticed within 5 s


@dataclass(eq=False)
class ApiError(DllamaError):
    """An error with its HTTP status; `extra` holds fields that OpenAI's errors do not have."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    @property
    def headers(self) -> dict[str, str]:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def body(self, *, has_number: bool = False) -> dict[str, object]:
        """Returns the JSON. `code` is the text that OpenAI has for this error; where it has none,
        and everywhere with `has_number`, the HTTP status, which llama-server's clients read."""
        error: dict[str, object] = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status if has_number or self.code is None else self.code,
        }
        return {"error": error | self.extra}


# The first row that fits wins: class, status, type.
STATUS: tuple[tuple[type[DllamaError], int, str], ...] = (
    (RequestError, 400, "invalid_request_error"),
    (TemplateError, 400, "invalid_request_error"),
    (TokenizerError, 400, "invalid_request_error"),
    (ModelNameError, 400, "invalid_request_error"),
    (NotOnHub, 404, "not_found_error"),
    (HubError, 502, "server_error"),
    (EngineBusy, 503, "unavailable_error"),
    (ClusterError, 503, "unavailable_error"),
    (DllamaError, 500, "server_error"),
)


def api_error(error: DllamaError) -> ApiError:
    """Returns the error that a client gets for `error`."""
    if isinstance(error, ApiError):
        return error
    status, kind = next((s, k) for cls, s, k in STATUS if isinstance(error, cls))
    told = ApiError(status, str(error), kind)
    if isinstance(error, RequestError):
        told.param = error.param
    elif isinstance(error, TemplateError):
        told.param = "messages"
    elif isinstance(error, ModelNameError):
        told.param = "model"
    elif isinstance(error, EngineBusy):
        told.retry_after_s = error.retry_after_s
    elif isinstance(error, ClusterError):
        told.retry_after_s = LOST_RETRY_S
    return told


def unforeseen() -> ApiError:
    """Returns the error for an exception without a sentence: the log has the traceback, the client
    must not."""
    return ApiError(
        500,
        "The server met an error that it did not expect while answering this request; "
        "its log says more. Other requests are not affected.",
        "server_error",
        code="internal_error",
    )


def prompt_too_long(n_prompt: int, max_seq_len: int) -> ApiError:
    """Returns the error for a prompt that leaves no room for even one token of an answer."""
    return ApiError(
        400,
        f"The prompt of {n_prompt} tokens exceeds the available context size of {max_seq_len} "
        "tokens for prompt and answer together; shorten the prompt or start the server with a "
        "larger --ctx-size.",
        "exceed_context_size_error",
        code="context_length_exceeded",
        extra={"n_prompt_tokens": n_prompt, "n_ctx": max_seq_len},
    )


def unknown_model(name: str, known: list[str]) -> ApiError:
    return ApiError(
        404,
        f"The model {name!r:.200} does not exist here; this server has {', '.join(known)}. "
        "Name one of these, or leave out `model` for the first.",
        param="model",
        code="model_not_found",
    )


def bad_api_key() -> ApiError:
    return ApiError(
        401,
        "This server needs an API key: send `Authorization: Bearer KEY` or `X-Api-Key: KEY` "
        "with one of the keys given to --api-key.",
        "authentication_error",
        code="invalid_api_key",
    )


def body_too_large(max_body_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"The request body is larger than the {max_body_bytes} bytes that this server reads; "
        "send less text.",
        code="request_too_large",
    )
