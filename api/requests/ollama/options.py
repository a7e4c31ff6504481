"""The `options` of Ollama's requests, in the words of this server's own fields."""

from __future__ import annotations

from api.requests.answer_format import FORMATS
from api.requests.fields import MAX_INT, Body, Field, integer, stop_strings
from api.requests.generation import COMMON, MODEL, STREAM
from dllama.errors import RequestError

_ELSEWHERE = frozenset(name for field in (MODEL, STREAM, *FORMATS) for name in field.names)

NUM_PREDICT = Field(("num_predict",), integer(-MAX_INT, MAX_INT), -1)
STOP: Field[tuple[str, ...], tuple[str, ...]] = Field(("stop",), stop_strings, ())

# Ollama's names of fields that every route of this server has under another name.
RENAMED = {"num_keep": "n_keep"}
# All names of an option that is honoured; those of this server's own samplers too.
HONOURED: dict[str, Field[object, object]] = {
    name: field for field in COMMON for name in field.names if name not in _ELSEWHERE
}
HONOURED |= {theirs: HONOURED[ours] for theirs, ours in RENAMED.items()}
HONOURED |= {"num_predict": NUM_PREDICT, "stop": STOP}

# How a model is loaded, which is decided when the server starts. A smaller `num_ctx` than the
# server's is room that is not used; a prompt that does not fit is refused for its length.
TAKEN = frozenset(
    {
        "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "numa", "low_vram", "f16_kv",
        "logits_all", "vocab_only", "use_mmap", "use_mlock", "embedding_only",
        "penalize_newline",  # Ollama's engine has dropped it too
    }
)  # fmt: skip

# A sampler that nobody has any more, and the value that turns it off.
OFF = {"tfs_z": 1.0}


def common_body(options: Body) -> dict[str, object]:
    """Returns the options as fields that every generating route has. Raises RequestError for one
    that would change the answer and cannot be honoured; those without a meaning are left out."""
    found: dict[str, object] = {}
    for name, value in options.items():
        if value is None:
            continue
        path = f"options.{name:.100}"
        if name in OFF and value != OFF[name]:
            raise RequestError(
                f"`{path}` is a sampler that this server does not have; leave it out, or send "
                f"{OFF[name]:g}, which turns it off.",
                param=path,
            )
        field = HONOURED.get(name)
        if field is None:
            continue
        if name == "seed" and isinstance(value, int) and value < 0:
            value = -1  # every negative seed of Ollama's is a random one
        field.read(value, path)  # so that an error names the option where the client wrote it
        if field is not NUM_PREDICT and field is not STOP:
            found[RENAMED.get(name, name)] = value
    return found


def max_tokens(options: Body) -> int | None:
    """Returns the most tokens of an answer; None for -1, -2 and 0, which are no limit."""
    n = NUM_PREDICT.of(options)
    return n if n > 0 else None


def unknown_options(options: Body) -> list[str]:
    """Returns the names of options that have no meaning here; Ollama ignores unknown ones too."""
    return sorted(set(options) - HONOURED.keys() - TAKEN - OFF.keys())
