"""The settings that the command line asks for, as frozen objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S, DEFAULT_REJOIN_S

DEFAULT_CONTEXT = 8192  # tokens, where a model allows more: KV memory grows with it
DEFAULT_BATCH = 16
MAX_BATCH = 64  # dllama.step.MAX_LOGIT_ROWS, which the server need not import
DEFAULT_DRAIN_S = 30.0  # what most supervisors wait before they kill
DEFAULT_MAX_BODY_MB = 10  # a million tokens of text
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_PING_S = 15
DEFAULT_STEP_TOKENS = 256  # of prompts a step: how long running answers may be held up

AUTO_SPECULATE = -1  # dllama.engine.speculative.speculation.AUTO: as many drafted tokens as pay
MAX_SPECULATE = 32  # dllama.engine.speculative.speculation.MAX_FORCED
DEFAULT_DRAFT = 8  # dllama.engine.speculative.model_drafter.DEFAULT_DRAFT


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """A model and the machines that run it. Crosses to the engine's process as JSON."""

    model: str
    threads: int
    ctx_size: int = 0  # 0: what the model was trained for, at most DEFAULT_CONTEXT
    kv_tokens: int = 0  # 0: chosen by what fits
    kv_type: str = "f16"  # a dllama.kv.KvType
    max_batch: int = DEFAULT_BATCH
    max_step_tokens: int = DEFAULT_STEP_TOKENS
    speculate: int = AUTO_SPECULATE  # tokens that are drafted at a time
    draft_model: str | None = None  # the file of a model that drafts too
    draft_max: int = DEFAULT_DRAFT  # tokens that it drafts at a time
    workers: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()  # none: measured and planned
    use_all: bool = False  # planned shares leave no machine out
    sync_type: str = "exact"
    advertise: str | None = None
    cluster_key: str | None = field(default=None, repr=False)
    encrypts: bool = True  # links to other machines
    max_recover_s: float = DEFAULT_MAX_RECOVER_S  # that answers wait for a lost node or engine
    rejoin_s: float = DEFAULT_REJOIN_S  # that a lost worker is waited for before it goes without
    is_restart: bool = False  # an engine takes over: workers that are away are not waited for long
    forgets_workers: bool = False  # all of them were removed by hand; others may be added
    context_shift: bool = False  # conversations that outgrow the context go on
    slot_save_path: str | None = None  # the directory of saved sessions
    quantize: str | None = None  # the type that float weights are made into; None: as they are
    tokenizer: str | None = None  # where it is not the model file's own
    name: str | None = None  # what /stats calls the model; None: what its file says

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where it is not what to_json wrote."""
        found = json.loads(text)
        known = {f.name for f in fields(cls)}
        if not isinstance(found, dict) or not known.issuperset(found):
            raise ValueError(f"engine settings are an object with the fields {sorted(known)}")
        for name in ("workers", "shares"):
            found[name] = tuple(found.get(name, ()))
        return cls(**found)


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """`fields` are fields of any request for an answer, `template_kwargs` variables of the chat
    template. `n_predict` None: as far as the context goes."""

    fields: Mapping[str, object] = field(default_factory=dict)
    n_predict: int | None = None
    template_kwargs: Mapping[str, object] = field(default_factory=dict)
    reasoning_format: str = "auto"
    prefills: bool = True
    pooling: str | None = None
    embd_normalize: int = 2


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The HTTP side of dllama-root."""

    hosts: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8080
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    cors_origins: tuple[str, ...] = ("*",)
    aliases: tuple[str, ...] = ()
    tokenizer: Path | None = None
    chat_template: str | None = None
    ssl_cert_file: Path | None = None
    ssl_key_file: Path | None = None
    drain_s: float = DEFAULT_DRAIN_S
    max_body_mb: int = DEFAULT_MAX_BODY_MB
    strict_fields: bool = False
    tags: tuple[str, ...] = ()
    api_prefix: str = ""  # before every route
    shows_slots: bool = True
    takes_props: bool = False
    has_page: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    ping_s: float = DEFAULT_PING_S
    is_verbose: bool = False
    defaults: RequestDefaults = field(default_factory=RequestDefaults)
    sleep_idle_s: float | None = None  # without work, until the weights are freed; None: never
