"""One request on its way through the engine: its tokens, how far they are computed, and how the
next token is sampled."""

from __future__ import annotations

import logging
import math
from array import array
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from dllama.engine.constraint import Constraint, masked, only
from dllama.engine.kv.index import page_key
from dllama.engine.kv.states import KeptState
from dllama.engine.sampling.sampler import Sampler
from dllama.engine.speculative.draft import Drafter
from dllama.errors import DllamaError
from dllama.requests import FinishReason, Resume, SamplingParams, Submit, TokenProbs
from dllama.step import PAGE_TOKENS, LogitRow

log = logging.getLogger(__name__)

NOT_CHOSEN = (
    "The next token of this answer could not be chosen, which is an error of the server: see its "
    "log. Other values of what governs the choice (`samplers`, penalties, temperature) may do."
)
POOLINGS = ("mean", "last", "cls", "none")


class SequenceState(StrEnum):
    WAITING = "waiting"  # owns no pages
    RUNNING = "running"  # owns pages for every token it has
    FINISHED = "finished"  # owns no pages; the scheduler has forgotten it


class Sampled(NamedTuple):
    """A sampled token (None: the sequence ends without one), and whether and why it is the last."""

    token: int | None
    finish: FinishReason | None = None
    error: str | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and answer in `tokens`. Keys and values of the first `n_computed` of them are in
    `pages`, except for `n_dropped` after the first `n_keep`, which context shifts have dropped. The
    others are pending: the rest of a prompt, the last token while decoding, everything (shifts
    included) after a pre-emption."""

    id: str
    tokens: list[int]
    n_prompt: int
    sampling: SamplingParams
    stop_ids: frozenset[int]
    max_tokens: int | None
    arrived_s: float
    n_candidates: int  # largest logits that the sampler needs, 0 for all
    sampler: Sampler
    deadline_s: float = math.inf  # when it ends at the latest, on the clock of `arrived_s`
    session_id: str | None = None
    is_shared: bool = True  # shares pages with others by the KV cache
    may_shift: bool = False
    n_keep: int = 0
    n_computed: int = 0
    n_dropped: int = 0
    has_run: bool = False  # also where it was pre-empted since
    n_cached: int = 0  # prompt tokens found in the KV cache when it first began to run
    keys: list[bytes] = field(default_factory=list)  # of its full pages, computed on demand
    n_published: int = 0  # full pages that others can find, from the first on
    pages: array[int] = field(default_factory=lambda: array("i"))  # int32, as in Step.pages
    window_pages: array[int] = field(default_factory=lambda: array("i"))  # of layers with a window,
    # by their places too; those that no later row sees are gone: -1
    slot: int | None = None  # of its state, where layers keep one
    source: KeptState | None = None  # that its next step goes on from, in place of its own
    copies: list[tuple[int, int]] = field(default_factory=list)  # of the state after so many
    # tokens, which the next step makes in these slots
    n_shared: int = 0  # tokens that another sequence began with too
    state: SequenceState = SequenceState.WAITING
    pooler: Pooler | None = None  # for a text to embed
    wants_progress: bool = False
    constraint: Constraint | None = None  # if the answer follows a grammar
    probs: list[TokenProbs] = field(default_factory=list)  # of tokens not delivered yet
    drafter: Drafter | None = None  # if its next tokens may be drafted
    last_token_s: float | None = None  # when the answer's last token was sampled
    request_id: str = ""  # of the HTTP request that it belongs to, for the logs
    began_s: float | None = None  # when the first step with some of it began

    @classmethod
    def from_submit(cls, submit: Submit, vocab_size: int, arrived_s: float) -> Sequence:
        """The new sequence of a checked request."""
        params, resume = submit.sampling, submit.resume or Resume()
        sampler = Sampler(params, vocab_size, mu=resume.mu)
        return cls(
            id=submit.id,
            tokens=[*submit.tokens, *resume.tokens],
            n_prompt=len(submit.tokens),
            sampling=params,
            stop_ids=frozenset(submit.stop_ids),
            max_tokens=submit.max_tokens,
            arrived_s=arrived_s,
            n_candidates=sampler.n_candidates if submit.grammar is None else 0,
            sampler=sampler,
            deadline_s=math.inf if submit.deadline_s is None else arrived_s + submit.deadline_s,
            session_id=submit.session_id,
            # A pooler needs the states of all tokens, and those are not kept.
            is_shared=submit.cache_prompt and submit.pooling is None,
            may_shift=submit.context_shift and submit.pooling is None,
            n_keep=len(submit.tokens) if submit.n_keep < 0 else submit.n_keep,
            pooler=None if submit.pooling is None else Pooler(submit.pooling),
            wants_progress=submit.wants_progress,
            has_run=resume.n_cached is not None,
            n_cached=resume.n_cached or 0,
            last_token_s=arrived_s if resume.tokens else None,
            request_id=submit.request_id,
        )

    def sample(self, row: LogitRow, max_len: int) -> Sampled:
        """Samples the next token from the model's logits, under the grammar if there is one, and
        appends it, unless it is a stop id. `max_len` tokens are a full context."""
        constraint = self.constraint
        is_complete = False
        try:
            allowed = row
            if constraint is not None:
                mask = constraint.mask()
                if not mask.any():
                    return Sampled(None, FinishReason.STOP)
                allowed = masked(row, mask)
            token, probs = self.sampler.choose(allowed, self.tokens, row)
            if constraint is not None and token not in self.stop_ids:
                if (kept := constraint.keep(token)) != token:
                    token, probs = self.sampler.choose(only(row, kept), self.tokens, row)
                is_complete = not constraint.advance(token)
        except DllamaError as error:
            return Sampled(None, FinishReason.ERROR, str(error))
        except Exception:  # the other sequences go on, and so does the engine
            log.exception("the next token of %s could not be chosen", self.id)
            return Sampled(None, FinishReason.ERROR, NOT_CHOSEN)
        if token in self.stop_ids:
            return Sampled(None, FinishReason.STOP)
        self.tokens.append(token)
        if probs is not None:
            self.probs.append(probs)
        if is_complete:
            return Sampled(token, FinishReason.STOP)
        is_full = len(self.tokens) == max_len and not self.may_shift
        is_last = self.n_generated == self.max_tokens or is_full
        return Sampled(token, FinishReason.LENGTH if is_last else None)

    def forget_pages(self) -> None:
        """Gives up all pages, its state, and what is computed in them; the tokens stay."""
        del self.pages[:]
        del self.window_pages[:]
        self.slot, self.source, self.n_shared = None, None, 0
        self.copies.clear()
        self.n_computed = self.n_published = self.n_dropped = 0

    def page_keys(self, n: int) -> list[bytes]:
        """The keys of the first `n` pages, all of them full."""
        self._hash_pages(n)
        return self.keys[:n]

    def key_before(self, page: int) -> bytes:
        """The key of the tokens before the page of this number; empty for the first."""
        self._hash_pages(page)
        return self.keys[page - 1] if page else b""

    def key_of(self, n_tokens: int) -> bytes:
        """The key of the first tokens, whether or not they fill their pages."""
        n_pages, n_rest = divmod(n_tokens, PAGE_TOKENS)
        before = self.key_before(n_pages)
        return page_key(before, self.tokens[n_tokens - n_rest : n_tokens]) if n_rest else before

    def _hash_pages(self, n: int) -> None:
        while len(self.keys) < n:
            begin = len(self.keys) * PAGE_TOKENS
            before = self.keys[-1] if self.keys else b""
            self.keys.append(page_key(before, self.tokens[begin : begin + PAGE_TOKENS]))

    def take_probs(self) -> list[TokenProbs] | None:
        """Takes the undelivered probabilities; None without any."""
        taken, self.probs = self.probs, []
        return taken or None

    @property
    def waited_s(self) -> float:
        """The time from its arrival to its first step, 0 before that."""
        return 0.0 if self.began_s is None else max(0.0, self.began_s - self.arrived_s)

    @property
    def n_left(self) -> int | None:
        """Tokens left until `max_tokens`; None where only the context ends the answer."""
        return None if self.max_tokens is None else self.max_tokens - self.n_generated

    @property
    def n_pending(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.tokens) - self.n_computed

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt


class Pooler:
    """Pools the last hidden states of a text's tokens into one vector, chunk by chunk, or keeps
    them all ("none"); starts over with the first token after a pre-emption."""

    def __init__(self, kind: str) -> None:
        assert kind in POOLINGS, "requests are checked before they become sequences"
        self._kind = kind
        self._n = 0
        self._sum = np.zeros(0)  # (dim,) float64
        self._kept: list[np.ndarray] = []  # (n, dim) float32 each

    def take(self, position: int, states: np.ndarray) -> None:
        """Adds the states (n, dim) of the next n tokens, the first of them at `position`."""
        if position == 0:
            self._n, self._sum, self._kept = 0, np.zeros(states.shape[1]), []
        assert position == self._n, "states come in the order of their tokens, all of them"
        self._n += len(states)
        if self._kind == "none":
            self._kept.append(states.astype(np.float32))
        elif self._kind == "mean":
            self._sum += states.sum(axis=0, dtype=np.float64)
        elif self._kind == "last":
            self._sum = states[-1].astype(np.float64)
        elif position == 0:
            self._sum = states[0].astype(np.float64)

    def vector(self) -> np.ndarray:
        """The pooled states, (dim,) float32, or those of all tokens, (n * dim,); not normalised."""
        if self._kind == "none":
            return np.concatenate(self._kept).ravel()
        pooled = self._sum / self._n if self._kind == "mean" else self._sum
        return pooled.astype(np.float32)
