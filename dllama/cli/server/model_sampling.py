"""The sampling that a GGUF file recommends for its model (`general.sampling.*`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from api.requests.sampling import sampling_of_body
from dllama.errors import RequestError
from dllama.requests import SamplingParams

log = logging.getLogger(__name__)

PREFIX = "general.sampling."
# Keys of a file, and the fields of a request that mean the same.
FIELDS = {
    "temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "xtc_probability": "xtc_probability", "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "repeat_last_n", "penalty_repeat": "repeat_penalty",
    "mirostat": "mirostat", "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta",
}  # fmt: skip
SEQUENCE = f"{PREFIX}sequence"  # names of samplers with semicolons between them


def model_sampling(metadata: Mapping[str, object]) -> SamplingParams:
    """Returns what counts where neither a request nor a flag says anything. What the file says
    wrongly is left out, with a line in the log."""
    found: dict[str, object] = {}
    asked = {name: metadata.get(PREFIX + key) for key, name in FIELDS.items()}
    names = metadata.get(SEQUENCE)
    asked["samplers"] = names.split(";") if isinstance(names, str) and names else None
    for name, value in asked.items():
        if value is None:
            continue
        try:
            found |= sampling_of_body({name: value})
        except RequestError as error:
            log.warning("the model file recommends a sampling that there is not: %s", error)
    return replace(SamplingParams(), **found)  # type: ignore[arg-type]  # as the readers made them
