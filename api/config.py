"""The configuration of the HTTP server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from dllama.requests import SamplingParams


def system_fingerprint() -> str:
    """Returns the name of the software that answers; a seed repeats a text only under the same
    one. It begins with a "b" because clients of llama-server tell its answers by that."""
    try:
        return f"build-dllama-{version('dllama')}"
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "build-dllama"


@dataclass(frozen=True, slots=True)
class VertexRoutes:
    """The paths at which Google's Vertex AI calls a container; no `health` if empty."""

    predict: str
    health: str = ""


@dataclass(frozen=True, slots=True)
class AnswerDefaults:
    """What a request to a model means where it says nothing.

    `sampling` is the model's own; its seed is not used. `fields` are fields of a request that count
    where it has none of these names.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    fields: Mapping[str, object] = field(default_factory=dict)
    n_predict: int | None = None  # tokens of an answer; None: as far as the context goes
    prefills: bool = True  # a last message of the assistant is the beginning of the answer
    pooling: str = "mean"  # of embeddings
    embd_normalize: int = 2


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """Limits and habits of the HTTP server.

    `cors_origins` holds origins a browser may call from: "*" is all of them, "localhost" any
    port of this machine.
    """

    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ("*",)
    max_body_bytes: int = 10 * 1024 * 1024
    strict_fields: bool = False  # what a request has and no answer can follow is refused
    max_sequences: int = 128  # of one request: prompts times n
    header_timeout_s: float = 30.0  # a connection that brings no request is closed
    body_timeout_s: float = 60.0  # a body that trickles in is given up
    stall_timeout_s: float = 60.0  # a reader that takes nothing is given up
    headers_after_s: float = 1.0  # how long a stream's 200 waits for an early error
    ping_s: float = 15.0  # how often a silent stream gets a comment, for proxies' timeouts
    stats_timeout_s: float = 2.0  # an engine in a long step answers late; /stats does not wait
    prefix: str = ""  # of every route's path
    shows_slots: bool = True
    takes_props: bool = False  # POST /props, which sets nothing
    has_page: bool = True  # GET / shows browsers a page
    is_verbose: bool = False  # answers tell how they were made, under `__verbose`
    fingerprint: str = field(default_factory=system_fingerprint)
    vertex: VertexRoutes | None = None  # None outside of Vertex AI
