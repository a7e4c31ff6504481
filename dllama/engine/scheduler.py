"""Which tokens of which sequences the next step computes. No clock, no randomness, no arrays.

The running sequences are always the oldest ones: admission is first come, first served, and when
pages run out the newest sequence is pre-empted. So the oldest always advances and none starves.
`running` and `waiting` are both in order of arrival.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Many

from dllama.engine.batch import Batch, Chunk
from dllama.engine.kv.cache import KvCache
from dllama.engine.kv.pages import PagePool
from dllama.engine.sequence import Sequence, SequenceState
from dllama.errors import ConfigError, EngineBusy, RequestError
from dllama.kv import KvShift
from dllama.step import MAX_LOGIT_ROWS, PAGE_TOKENS
from dllama.windows import NO_WINDOWS, Windows

MAX_BATCH = 16  # sequences that run at once
MAX_STEP_TOKENS = 256  # rows of a step: more would delay the next token of the others
MAX_WAITING = 512  # sequences in the queue; beyond this a client does better to try elsewhere

# Chooses drafts as Speculation.choose does: (decoding sequences, the most tokens for each, the most
# in all) -> a draft for each.
ChooseDrafts = Callable[[Many[Sequence], Many[int], int], list[list[int]]]


class Scheduler:
    """Continuous batching with chunked prefill over one pool of pages."""

    def __init__(
        self,
        *,
        n_pages: int,
        max_seq_len: int,
        max_batch: int = MAX_BATCH,
        max_step_tokens: int = MAX_STEP_TOKENS,
        max_waiting: int = MAX_WAITING,
        n_slots: int = 0,
        windows: Windows = NO_WINDOWS,
    ) -> None:
        """`n_slots` are those of states, 0 for a model without; `windows` are those of layers that
        do not see everything, if there are some. Raises ConfigError where the limits
        leave no room to work."""
        if n_pages < 1:
            raise ConfigError(
                f"there is room for {n_pages} KV pages, and a sequence needs at least one of "
                f"{PAGE_TOKENS} tokens; give the KV cache more memory or use a smaller model"
            )
        if not 1 <= max_batch <= max_step_tokens or max_waiting < 1:
            raise ConfigError(
                f"max_batch={max_batch}, max_step_tokens={max_step_tokens} and "
                f"max_waiting={max_waiting} do not fit: all must be at least 1, and every "
                "sequence of a full batch needs one token of a step"
            )
        self.max_len = _max_len(n_pages, max_seq_len)  # tokens of a sequence, answer too
        self.kv = KvCache(n_pages, self.max_len, n_slots, windows)
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.n_preempted = 0
        self._windows = windows
        self._max_batch = max_batch
        self._max_step_tokens = max_step_tokens
        self._max_waiting = max_waiting
        self._by_id: dict[str, Sequence] = {}
        self._with_deadline: dict[str, Sequence] = {}

    @property
    def pool(self) -> PagePool:
        return self.kv.pool

    def __contains__(self, sequence_id: str) -> bool:
        return sequence_id in self._by_id

    def __len__(self) -> int:
        """The number of waiting and running sequences."""
        return len(self._by_id)

    def add(self, sequence: Sequence, *, is_resumed: bool = False) -> None:
        """Queues a new sequence. Raises RequestError where it can never run, EngineBusy where
        the queue is full, which does not count for one that another engine had before."""
        n_prompt = sequence.n_prompt if sequence.may_shift else len(sequence.tokens)
        if n_prompt >= self.max_len:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, and prompt and answer together can have at "
                f"most {self.max_len}; shorten the prompt to {self.max_len - 1} tokens or fewer, "
                "or start the server with a larger context",
                param="messages",
            )
        if len(self.waiting) >= self._max_waiting and not is_resumed:
            raise EngineBusy(
                f"{len(self.waiting)} requests are waiting already, which is all the queue "
                "holds; try again a little later"
            )
        self._by_id[sequence.id] = sequence
        if sequence.deadline_s < math.inf:
            self._with_deadline[sequence.id] = sequence
        self.waiting.append(sequence)

    def remove(self, sequence_id: str) -> Sequence | None:
        """Forgets a sequence and frees its pages; None where there is none of this id."""
        sequence = self._by_id.pop(sequence_id, None)
        if sequence is None:
            return None
        self._with_deadline.pop(sequence_id, None)
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._leave(sequence)
        sequence.state = SequenceState.FINISHED
        return sequence

    def all_late(self, now_s: float) -> list[Sequence]:
        """The sequences, running or waiting, whose deadline has passed."""
        return [s for s in self._with_deadline.values() if s.deadline_s <= now_s]

    def clear(self) -> list[Sequence]:
        """Removes every sequence, the oldest first, and returns them."""
        ids = [sequence.id for sequence in [*self.running, *self.waiting]]
        return [removed for name in ids if (removed := self.remove(name)) is not None]

    # ---- a loss of all keys and values
    def suspend(self) -> None:
        """Moves every running sequence back to the head of the queue, where the oldest comes first.
        Their tokens stay; all keys and values are gone, also those that could be found."""
        for sequence in self.running:
            sequence.forget_pages()
            if sequence.drafter is not None:
                sequence.drafter.leave()
            sequence.state = SequenceState.WAITING
        self.waiting.extendleft(reversed(self.running))
        self.running.clear()
        self._empty(self.pool.n_pages, self._windows)

    def resume(
        self, n_pages: int, max_seq_len: int, windows: Windows = NO_WINDOWS
    ) -> list[Sequence]:
        """Goes on after `suspend` with pools of this size. Removes and returns the sequences that
        it has no room for."""
        self.max_len = _max_len(n_pages, max_seq_len)
        self._empty(n_pages, windows)
        too_long = [s for s in self.waiting if len(s.tokens) >= self.max_len and not s.may_shift]
        for sequence in too_long:
            self.remove(sequence.id)
        return too_long

    def _empty(self, n_pages: int, windows: Windows) -> None:
        self.kv, self._windows = self.kv.emptied(n_pages, self.max_len, windows), windows

    @property
    def n_decoding(self) -> int:
        """Running sequences whose next row continues an answer."""
        return sum(sequence.n_pending == 1 for sequence in self.running)

    def schedule(
        self, max_prefill: int | None = None, choose_drafts: ChooseDrafts | None = None
    ) -> Batch | None:
        """The next step: a row for every decoding sequence, then drafts, then prompts up to the
        budget: `max_prefill` rows at most while a sequence decodes. None where there is nothing to
        do. Every chunk has its pages."""
        shifts = self._make_room()
        chunks = [Chunk(sequence, 1) for sequence in self.running if sequence.n_pending == 1]
        budget = self._max_step_tokens - len(chunks)
        if chunks and max_prefill is not None:
            budget = min(budget, max_prefill)
        n_known = len(self.running)
        if choose_drafts is not None and chunks:
            chunks = self._with_drafts(chunks, choose_drafts, budget)
            budget = max(0, budget - Batch(chunks).n_drafted)
        while budget and self.waiting and self._admit(self.waiting[0]):
            pass
        reading = [s for i, s in enumerate(self.running) if s.n_pending > 1 or i >= n_known]
        shares = fair_shares([self.kv.n_ready(sequence) for sequence in reading], budget)
        n_spare = len(self.running)
        opened = [self.kv.open_window(s, n, n_spare) for s, n in zip(reading, shares, strict=True)]
        chunks += [Chunk(s, n) for s, n in zip(reading, opened, strict=True) if n]
        for chunk in chunks:
            self.kv.states.plan_copies(chunk.sequence, chunk.n)
        return Batch(chunks, shifts, self.kv.take_copies()) if chunks else None

    def note_computed(self, sequence: Sequence, n: int) -> None:
        """Records that the next `n` tokens of a sequence are computed."""
        self.kv.note_computed(sequence, n)

    def check_integrity(self) -> None:
        """Raises AssertionError where pages and sequences contradict each other."""
        self.kv.check_integrity(self.running)
        assert not any(sequence.pages for sequence in self.waiting), "a waiting sequence has pages"
        assert len(self.running) + len(self.waiting) == len(self._by_id)

    def _with_drafts(
        self, chunks: list[Chunk], choose_drafts: ChooseDrafts, budget: int
    ) -> list[Chunk]:
        """The chunks of decoding sequences with drafts after their tokens. Drafts take at most
        half of the rows that prompts could use, and free pages only."""
        n_running = len(self.running)
        may_admit = bool(self.waiting) and n_running < self._max_batch
        is_shared = may_admit or len(chunks) < n_running or budget == 0
        max_rows = budget // 2 if is_shared else self._max_step_tokens - len(chunks)
        sequences = [chunk.sequence for chunk in chunks]
        limits = []
        for sequence in sequences:
            n_ahead, n_left = self.kv.n_ahead(sequence), sequence.n_left
            limits.append(n_ahead if n_left is None else max(0, min(n_ahead, n_left - 1)))
        n_rows = min(self._max_batch, len(self._by_id))  # of logits, without drafts
        drafts = choose_drafts(sequences, limits, min(max_rows, MAX_LOGIT_ROWS - n_rows))
        drafted = []
        for sequence, draft in zip(sequences, drafts, strict=True):
            n = self.kv.reserve(sequence, len(draft), n_running) if draft else 0
            drafted.append(Chunk(sequence, 1, draft[:n]))
        return drafted

    def _make_room(self) -> list[KvShift]:
        """Shifts full contexts and gives every running sequence the page its newest token needs,
        the oldest first; the newest sequences are pre-empted when pages run out."""
        shifts = []
        for sequence in list(self.running):
            if self.kv.is_full(sequence) and self._free_for(sequence, self.kv.can_shift):
                shifts.append(self.kv.shift(sequence))
            if self._free_for(sequence, self.kv.can_grow):
                self.kv.grow(sequence)
        return shifts

    def _free_for(self, sequence: Sequence, has_room: Callable[[Sequence], bool]) -> bool:
        """Pre-empts the newest sequences until this one has the free pages it needs; False where
        it was pre-empted itself."""
        while sequence.state is SequenceState.RUNNING:
            if has_room(sequence):
                return True
            self._preempt(self.running[-1])
        return False

    def _preempt(self, sequence: Sequence) -> None:
        """Moves a sequence back to the head of the queue. It keeps its tokens; keys and values
        that are evicted meanwhile are computed again."""
        self.running.remove(sequence)
        self._leave(sequence)
        sequence.state = SequenceState.WAITING
        self.waiting.appendleft(sequence)
        self.n_preempted += 1

    def _leave(self, sequence: Sequence) -> None:
        """Takes all pages from a sequence, those in the draft model too."""
        self.kv.leave(sequence)
        if sequence.drafter is not None:
            sequence.drafter.leave()

    def _admit(self, sequence: Sequence) -> bool:
        """Moves the head of the queue to the running sequences; False where there is no room.

        It gets the pages of all its tokens at once, so that no half-computed prompt is ever given
        up; and one free page for each running sequence must remain, or it would soon be pre-empted
        again.
        """
        if len(self.running) == self._max_batch:
            return False
        if not self.kv.admit(sequence, len(self.running)):
            return False
        self.waiting.popleft()
        sequence.state = SequenceState.RUNNING
        self.running.append(sequence)
        return True


def _max_len(n_pages: int, max_seq_len: int) -> int:
    return min(max_seq_len, n_pages * PAGE_TOKENS)


def fair_shares(pending: Many[int], budget: int) -> list[int]:
    """The rows of each prompt in a step of `budget` rows; `pending` are their tokens still to be
    computed, the oldest prompt first.

    The oldest gets half, so that it always advances; the rest goes to those that need least, so
    that a short prompt does not wait for a long one. What is left over, the oldest gets.
    """
    shares = [0] * len(pending)
    if not pending or budget <= 0:
        return shares
    shares[0] = min(pending[0], -(-budget // 2))
    left = budget - shares[0]
    for i in sorted(range(1, len(pending)), key=lambda i: (pending[i], i)):
        shares[i] = min(left, pending[i])
        left -= shares[i]
    shares[0] += min(left, pending[0] - shares[0])
    return shares
