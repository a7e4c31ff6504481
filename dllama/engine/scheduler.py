"""Who computes what in the next step, and on which pages. No clock, no chance, no arrays.

The running sequences are always the oldest ones: admission is first come, first served, and when
pages run out it is the newest that makes room. So the oldest sequence always goes on, and nobody
waits for ever. `running` and `waiting` are both in order of arrival.
"""

from __future__ import annotations

from collections import Counter, deque

from dllama.engine.batch import Batch, Chunk
from dllama.engine.page_pool import PagePool, pages_for
from dllama.engine.sequence import Sequence, SequenceState
from dllama.errors import ConfigError, EngineBusy, RequestError
from dllama.step import PAGE_TOKENS

MAX_BATCH = 16  # sequences that run at once
MAX_STEP_TOKENS = 256  # rows of a step: more would make the others wait longer for their token
MAX_WAITING = 512  # sequences in the queue; beyond this a client does better to try elsewhere


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
    ) -> None:
        """Raises ConfigError where the limits leave no room to work."""
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
        self.pool = PagePool(n_pages)
        self.max_len = min(max_seq_len, n_pages * PAGE_TOKENS)  # tokens of a sequence, answer too
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.n_preempted = 0
        self._max_batch = max_batch
        self._max_step_tokens = max_step_tokens
        self._max_waiting = max_waiting
        self._by_id: dict[str, Sequence] = {}

    def __contains__(self, sequence_id: str) -> bool:
        return sequence_id in self._by_id

    def __len__(self) -> int:
        """Sequences that wait or run."""
        return len(self._by_id)

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence. Raises RequestError where it can never run, EngineBusy where
        the queue is full."""
        n_prompt = len(sequence.tokens)
        if n_prompt >= self.max_len:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, and prompt and answer together can have at "
                f"most {self.max_len}; shorten the prompt to {self.max_len - 1} tokens or fewer, "
                "or start the server with a larger context",
                param="messages",
            )
        if len(self.waiting) >= self._max_waiting:
            raise EngineBusy(
                f"{len(self.waiting)} requests are waiting already, which is all the queue "
                "holds; try again a little later"
            )
        self._by_id[sequence.id] = sequence
        self.waiting.append(sequence)

    def remove(self, sequence_id: str) -> Sequence | None:
        """Forgets a sequence and frees its pages; None where there is none of this id."""
        sequence = self._by_id.pop(sequence_id, None)
        if sequence is None:
            return None
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._take_pages(sequence)
        sequence.state = SequenceState.FINISHED
        return sequence

    def clear(self) -> list[Sequence]:
        """Removes every sequence, the oldest first, and returns them."""
        ids = [sequence.id for sequence in [*self.running, *self.waiting]]
        return [removed for name in ids if (removed := self.remove(name)) is not None]

    def schedule(self) -> Batch | None:
        """The next step: a token for every decoding sequence, then prompts up to the budget.
        None where there is nothing to do. Every chunk has its pages."""
        self._make_room()
        chunks = [Chunk(sequence, 1) for sequence in self.running if sequence.n_pending == 1]
        budget = self._max_step_tokens - len(chunks)
        for sequence in self.running:
            if budget and sequence.n_pending > 1:
                chunks.append(Chunk(sequence, min(budget, sequence.n_pending)))
                budget -= chunks[-1].n
        while budget and self.waiting and self._admit(self.waiting[0]):
            sequence = self.running[-1]
            chunks.append(Chunk(sequence, min(budget, sequence.n_pending)))
            budget -= chunks[-1].n
        return Batch(chunks) if chunks else None

    def check_integrity(self) -> None:
        """Raises AssertionError where pages and sequences contradict each other."""
        self.pool.check_integrity()
        owners = Counter(page for sequence in self.running for page in sequence.pages)
        assert len(owners) == self.pool.n_used, "a page is owned by nobody that runs"
        for page, n in owners.items():
            assert self.pool.n_owners(page) == n, f"page {page} has {n} owners and does not know"
        for sequence in self.running:
            assert len(set(sequence.pages)) == len(sequence.pages), "a sequence has a page twice"
        assert not any(sequence.pages for sequence in self.waiting), "a waiting sequence has pages"
        assert len(self.running) + len(self.waiting) == len(self._by_id)

    def _make_room(self) -> None:
        """Gives every running sequence the page its newest token needs, the oldest first; the
        newest sequences give theirs up when there are no more."""
        for sequence in list(self.running):
            missing = pages_for(len(sequence.tokens)) - len(sequence.pages)
            while sequence.state is SequenceState.RUNNING and missing > self.pool.n_free:
                self._preempt(self.running[-1])
            if sequence.state is SequenceState.RUNNING and missing > 0:
                self._give_pages(sequence, missing)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue, with all its tokens; its KV is computed again later."""
        self.running.remove(sequence)
        self._take_pages(sequence)
        sequence.state = SequenceState.WAITING
        self.waiting.appendleft(sequence)
        self.n_preempted += 1

    def _admit(self, sequence: Sequence) -> bool:
        """Moves the head of the queue to the running ones, if there is room for it.

        It gets the pages of all its tokens at once, so that no half-read prompt ever has to be
        given up; and one free page for each that runs must remain, or it would be pre-empted
        again before its first pages paid off.
        """
        if len(self.running) == self._max_batch:
            return False
        # The last token is always computed: its logits are what the sequence is here for.
        # And of a sequence that is read for its states, every token is.
        n_known = 0 if sequence.pooler is not None else len(sequence.tokens) - 1
        shared = self.pool.find(sequence.page_keys(n_known // PAGE_TOKENS))
        needed = pages_for(len(sequence.tokens)) - len(shared)
        if needed + self.pool.n_kept(shared) + len(self.running) > self.pool.n_free:
            return False
        self.waiting.popleft()
        self.pool.retain(shared)
        sequence.pages.extend(shared)
        sequence.n_computed = len(shared) * PAGE_TOKENS
        sequence.n_published = len(shared)
        if not sequence.n_generated:
            sequence.n_cached = sequence.n_computed
        self._give_pages(sequence, needed)
        sequence.state = SequenceState.RUNNING
        self.running.append(sequence)
        return True

    def note_computed(self, sequence: Sequence, n: int) -> None:
        """The next `n` tokens of a sequence are in its pages now; full ones can be shared."""
        sequence.n_computed += n
        n_full = sequence.n_computed // PAGE_TOKENS
        if n_full > sequence.n_published:
            keys = sequence.page_keys(n_full)
            for i in range(sequence.n_published, n_full):
                self.pool.publish(sequence.pages[i], keys[i])
            sequence.n_published = n_full

    def _give_pages(self, sequence: Sequence, n: int) -> None:
        pages = self.pool.allocate(n)
        assert pages is not None, "pages are counted before they are given"
        sequence.pages.extend(pages)

    def _take_pages(self, sequence: Sequence) -> None:
        self.pool.release(sequence.pages)
        del sequence.pages[:]
        sequence.n_computed = sequence.n_published = 0
