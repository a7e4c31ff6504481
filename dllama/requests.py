"""The messages between the server and an engine: plain data, token ids only.

Every message is a frozen dataclass of scalars, strings and lists, so that it crosses a process
border as msgpack; the limits of its fields are in their types (dllama/limits.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Annotated

from dllama.engine.sampling.names import DEFAULT_ORDER
from dllama.engine.sampling.parameters import Bounds, numbers_of
from dllama.limits import MAX_ENTRIES, Id, MaxLength, MultipleOf, Prompt, Token, Tokens
from dllama.nodes import NodesCall, NodesReply

Floats = Annotated[bytes, MultipleOf(4), MaxLength(4 * MAX_ENTRIES)]


class FinishReason(StrEnum):
    STOP = "stop"  # an end-of-turn token, or a stop string found by the server
    LENGTH = "length"  # max_tokens reached, or the context is full
    ABORT = "abort"  # the client went away
    ERROR = "error"  # the engine lost the sequence; `error` says why


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The sampling parameters of one sequence.

    logit_bias comes first, then `samplers` in their order; mirostat 1 or 2 replaces all of them but
    the logits processors and temperature. Penalties look at the last `repeat_last_n` tokens of
    prompt and answer, DRY at the last `dry_penalty_last_n` (-1: all); its repetitions end at a
    token of `dry_breakers` and at each of the token sequences `dry_phrases`. The random number of a
    token depends on (seed, position) alone. With `n_probs` (not None) each token comes with its
    log-probability and the `n_probs` likeliest tokens; with `post_sampling_probs` these are
    probabilities among the tokens that the samplers left.
    """

    temperature: Annotated[float, Bounds(0.0, 1e6, "0 takes the likeliest token")] = 0.8
    top_k: Annotated[int, Bounds(0, inf, "choose among the K likeliest, 0: all")] = 40
    top_p: Annotated[float, Bounds(0.0, 1.0, "choose among the likeliest that make up P")] = 0.95
    min_p: Annotated[float, Bounds(0.0, 1.0, "not those below P times the likeliest")] = 0.05
    repeat_penalty: Annotated[
        float,
        Bounds(1e-3, 1e3, "divides the logits of recent tokens, 1: off", is_hard=True),
    ] = 1.0
    presence_penalty: Annotated[float, Bounds(-1e3, 1e3, "taken off recent tokens, 0: off")] = 0.0
    frequency_penalty: Annotated[
        float,
        Bounds(-1e3, 1e3, "taken off for each recent occurrence, 0: off"),
    ] = 0.0
    repeat_last_n: Annotated[
        int, Bounds(-1, inf, "how many tokens are recent, -1: all", is_hard=True)
    ] = 64
    logit_bias: dict[Token, float] = field(default_factory=dict)
    seed: int = 0
    dynatemp_range: Annotated[
        float,
        Bounds(0.0, 1e6, "temperature by entropy, up and down by X, 0: off"),
    ] = 0.0
    dynatemp_exponent: Annotated[float, Bounds(0.0, 1e3, "how entropy becomes temperature")] = 1.0
    typical_p: Annotated[
        float, Bounds(0.0, 1.0, "choose among the most typical that make up P, 1: off")
    ] = 1.0
    top_n_sigma: Annotated[
        float,
        Bounds(-1e3, 1e3, "not those N standard deviations below the best, -1: off"),
    ] = -1.0  # fmt: skip
    eta_cutoff: Annotated[
        float, Bounds(0.0, 1.0, "not those less likely than the entropy lets expect, 0: off")
    ] = 0.0
    xtc_probability: Annotated[
        float, Bounds(0.0, 1.0, "how often the top choices are left out, 0: never")
    ] = 0.0
    xtc_threshold: Annotated[float, Bounds(0.0, 1.0, "how likely a top choice is")] = 0.1
    dry_multiplier: Annotated[
        float,
        Bounds(0.0, 1e3, "how strongly repetitions are avoided, 0: off"),
    ] = 0.0
    dry_base: Annotated[float, Bounds(1.0, 1e3, "how fast that grows with their length")] = 1.75
    dry_allowed_length: Annotated[
        int, Bounds(0, inf, "repetitions up to N cost nothing", is_hard=True)
    ] = 2
    dry_penalty_last_n: Annotated[
        int, Bounds(-1, inf, "how far back repetitions are looked for, -1: all", is_hard=True)
    ] = 64
    dry_breakers: Tokens = field(default_factory=list)
    dry_phrases: list[Tokens] = field(default_factory=list)
    mirostat: Annotated[int, Bounds(0, 2, "1 or 2 keeps the surprise near a target, 0: off")] = 0
    mirostat_tau: Annotated[float, Bounds(0.0, 1e3, "the target, in bits")] = 5.0
    mirostat_eta: Annotated[float, Bounds(0.0, 1e3, "how fast it is followed")] = 0.1
    min_keep: Annotated[
        int, Bounds(0, inf, "tokens that every filter leaves, 0: one", is_hard=True)
    ] = 0
    samplers: tuple[Id, ...] = DEFAULT_ORDER
    n_probs: int | None = None
    post_sampling_probs: bool = False


MAX_PROBS = 1024  # of `n_probs`
SAMPLING_NUMBERS = numbers_of(SamplingParams)


@dataclass(frozen=True, slots=True)
class TokenProbs:
    """The probability of a token: its natural log-probability by the model's logits or, with
    `post_sampling_probs`, its probability among what the samplers left. `top_ids` are the likeliest
    tokens, the best first, and `top_values` the same of each."""

    token: int
    value: float
    top_ids: Tokens
    top_values: list[float]


@dataclass(frozen=True, slots=True)
class Resume:
    """What an engine that is gone has told of a sequence: another one goes on with the very next
    token. `tokens` are those of the answer; `n_cached` is None where it had told nothing. `mu` and
    `n_replaced` are those of its last Output: the tokens alone do not tell them."""

    tokens: Prompt = field(default_factory=list)
    n_cached: int | None = None
    mu: float | None = None
    n_replaced: int = 0


@dataclass(frozen=True, slots=True)
class Submit:
    """A sequence to continue. Ends at any of `stop_ids` (not part of the answer), after
    `max_tokens` (None: as far as the context goes), or where the context is full; with
    `context_shift` it goes on there: the first `n_keep` tokens stay (-1: the whole prompt), the
    older half of the others is forgotten. `cache_prompt` lets it reuse the KV pages of other
    sequences, and others reuse its own. `session_id` names a conversation, whose pages leave the
    cache last. `deadline_s` is how long after its arrival it ends with an error, finished or not.
    `grammar` (as dllama.constraints.grammars makes it) says which answers are allowed; None: all.
    `draft_max` tokens at most are drafted at a time (None: as the engine decides, 0: none), none
    where they would be fewer than `draft_min`, and none whose chance is below `draft_p_min`; drafts
    change the speed, never the tokens. One with `resume` is never refused for want of room in the
    queue."""

    id: Id
    tokens: Prompt
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop_ids: Tokens = field(default_factory=list)
    max_tokens: int | None = None
    pooling: Id | None = None  # "mean", "last", "cls": no answer, but the prompt's pooled states
    wants_progress: bool = False  # an Output after every part of the prompt
    cache_prompt: bool = True
    session_id: Id | None = None
    deadline_s: float | None = None
    context_shift: bool = False
    n_keep: int = 0
    grammar: str | None = None
    draft_max: int | None = None
    draft_min: int = 0
    draft_p_min: float = 0.0
    resume: Resume | None = None  # where another engine had it before
    request_id: Id = ""  # of the HTTP request that it belongs to, for the logs


@dataclass(frozen=True, slots=True)
class Abort:
    """Ends a sequence, running or waiting; unknown ids are ignored. There is no reply."""

    id: Id


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """Asks for a StatsReply with the same id."""

    id: Id


class SessionAction(StrEnum):
    SAVE = "save"
    RESTORE = "restore"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class SessionCall:
    """Asks for a SessionReply with the same id. `save` writes a session's keys and values to
    files called `filename`, one on each rank; `restore` reads them into the session of this id
    (another name than it had is fine), `erase` forgets the session and needs no filename."""

    id: Id
    action: SessionAction
    session_id: Id
    filename: Id = ""


@dataclass(frozen=True, slots=True)
class SessionReply:
    """The result of a SessionCall: the reason of a failure (`error`), or the tokens that were
    saved, restored or erased, and the bytes of all ranks' files. `retry_after_s` is set on a
    failure that passes."""

    id: Id
    error: str | None = None
    retry_after_s: float | None = None
    n_tokens: int = 0
    n_bytes: int = 0
    elapsed_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Output:
    """The result of one step for one sequence. `tokens` are new ids (a stop id is left out);
    `finish` is set on the last one. `n_cached` counts prompt tokens found in the KV cache. `probs`
    has an entry for each of `tokens` where the request asked for them. `retry_after_s` is set on an
    error that only means a lack of room (HTTP 503). `mu` (of mirostat) and `n_replaced` (tokens
    that a grammar's budget has replaced so far) are what `Resume` needs beside the tokens."""

    id: Id
    tokens: Prompt
    finish: FinishReason | None = None
    error: str | None = None
    n_prompt: int = 0
    n_cached: int = 0
    retry_after_s: float | None = None
    probs: list[TokenProbs] | None = None
    n_computed: int = 0  # tokens that are in the KV cache now
    embedding: Floats | None = None  # (dim,) float32, little-endian
    n_drafted: int = 0  # drafted tokens that the step checked, and those accepted
    n_accepted: int = 0
    mu: float | None = None
    n_replaced: int = 0
    waited_s: float = 0.0  # from its arrival to the first step that computed some of it


@dataclass(frozen=True, slots=True)
class StepDone:
    outputs: list[Output]


@dataclass(frozen=True, slots=True)
class EngineState:
    """The state of an engine: "loading" (with progress 0..1 and a line of text), "ready",
    "recovering" (a worker is lost; while weights are sent again it is "loading"), "failed" (for
    good) or "sleeping" (its process was ended for want of work; the server's client says so). In
    all but "ready" new requests are refused with 503, unless it `queues`: then all that run and
    all that come wait until it is ready again. It `is_short` of memory where it has failed as its
    nodes have less than the model needs."""

    state: Id
    progress: float = 0.0
    detail: str = ""
    queues: bool = False
    is_short: bool = False


@dataclass(frozen=True, slots=True)
class StatsReply:
    id: Id
    stats: dict[str, object]  # the body of GET /stats, less what the server itself counts


ToEngine = Submit | Abort | StatsQuery | SessionCall | NodesCall
FromEngine = StepDone | EngineState | StatsReply | SessionReply | NodesReply
