"""Why a request does not get the model of a router that it names."""

from __future__ import annotations

from api.errors import ApiError
from api.models.entry import ModelEntry
from api.models.tickets import Refusal
from dllama.errors import DllamaError, EngineBusy

GONE_RETRY_S = 1.0
STOP_RETRY_S = 5.0


def not_loaded(name: str) -> ApiError:
    return ApiError(
        400,
        f"The model {name!r:.200} is not loaded; send POST /models/load, or a request that loads "
        "it (?autoload=true).",
        param="model",
        code="model_not_loaded",
    )


def unusable(entry: ModelEntry) -> ApiError:
    """Returns the error for a model of the list that cannot be loaded as things are."""
    told = f"The model {entry.name!r:.200} cannot be loaded: {entry.fault}"
    if entry.is_downloaded:
        return ApiError(503, told, "unavailable_error", param="model", code="model_failed")
    return ApiError(404, told, "not_found_error", param="model", code="model_not_downloaded")


def refused(refusal: Refusal) -> DllamaError:
    if refusal.retry_after_s is not None:
        return EngineBusy(refusal.message, retry_after_s=refusal.retry_after_s)
    return ApiError(503, refusal.message, "unavailable_error")


def stopping() -> EngineBusy:
    return EngineBusy(
        "The server stops before the model is loaded; send the request again in a moment.",
        retry_after_s=STOP_RETRY_S,
    )


def gone(name: str) -> EngineBusy:
    return EngineBusy(
        f"The model {name!r} was unloaded in this moment; send the request again.",
        retry_after_s=GONE_RETRY_S,
    )
