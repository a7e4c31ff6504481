"""One request on its way through the engine: what it asked for and how far it has come."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from enum import StrEnum

from dllama.engine.constraint import Constraint
from dllama.engine.drafter import Guesser
from dllama.engine.page_index import page_key
from dllama.engine.pooling import Pooler
from dllama.engine.sampler import Sampler
from dllama.requests import SamplingParams, Submit, TokenProbs
from dllama.step import PAGE_TOKENS


class SequenceState(StrEnum):
    WAITING = "waiting"  # owns no pages
    RUNNING = "running"  # owns pages for every token it has
    FINISHED = "finished"  # owns no pages and is known to nobody


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and answer in `tokens`; keys and values of the first `n_computed` of them were
    computed and are in `pages`, but for `n_dropped` behind the first `n_keep`, which shifts have
    forgotten. What is not computed yet is the next step's work: the rest of a prompt, the last
    token while decoding, everything, shifts included, after a pre-emption."""

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
    is_shared: bool = True  # finds what others computed, and lets itself be found
    may_shift: bool = False
    n_keep: int = 0
    n_computed: int = 0
    n_dropped: int = 0
    n_cached: int = 0  # prompt tokens that were found computed when it first began to run
    keys: list[bytes] = field(default_factory=list)  # of its full pages, as far as they were asked
    n_published: int = 0  # pages that others can find, from the first on
    pages: array[int] = field(default_factory=lambda: array("i"))  # int32, as in Step.pages
    state: SequenceState = SequenceState.WAITING
    pooler: Pooler | None = None  # of one that is only read, for its states
    wants_progress: bool = False
    constraint: Constraint | None = None  # of one whose answer follows a grammar
    probs: list[TokenProbs] = field(default_factory=list)  # of tokens that are not told yet
    drafter: Guesser | None = None  # of one whose next tokens may be guessed
    last_token_s: float | None = None  # when the last token of the answer came

    @classmethod
    def from_submit(cls, submit: Submit, vocab_size: int, arrived_s: float) -> Sequence:
        """The sequence that a checked request begins."""
        params = submit.sampling
        sampler = Sampler(params, vocab_size)
        return cls(
            id=submit.id,
            tokens=list(submit.tokens),
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
        )

    def page_keys(self, n: int) -> list[bytes]:
        """The keys of its first `n` pages, which have to be full of tokens."""
        while len(self.keys) < n:
            begin = len(self.keys) * PAGE_TOKENS
            before = self.keys[-1] if self.keys else b""
            self.keys.append(page_key(before, self.tokens[begin : begin + PAGE_TOKENS]))
        return self.keys[:n]

    def take_probs(self) -> list[TokenProbs] | None:
        """What is to be told of the newest tokens; None where nothing is."""
        taken, self.probs = self.probs, []
        return taken or None

    @property
    def n_left(self) -> int | None:
        """Tokens that the answer may still get; None where only the context ends it."""
        return None if self.max_tokens is None else self.max_tokens - self.n_generated

    @property
    def n_pending(self) -> int:
        """Tokens whose keys and values are still to be computed."""
        return len(self.tokens) - self.n_computed

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt
