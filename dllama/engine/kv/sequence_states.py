"""The states of sequences: who owns which slot, where a sequence goes on from, and which states are
kept for others.

Kept are the state before a prompt's last token, from which the same prompt goes on and the next
turn of its conversation; that of a sequence that ends or is pre-empted; and, once two prompts have
begun alike, the state after what they share.
"""

from __future__ import annotations

from collections.abc import Iterable

from dllama.engine.kv.states import KeptState, StatePool
from dllama.engine.sequence import Sequence


class SequenceStates:
    """The pool of slots as sequences use it. Without slots it does nothing: no layer has states."""

    def __init__(self, n_slots: int) -> None:
        self.pool = StatePool(n_slots)

    @property
    def is_needed(self) -> bool:
        return self.pool.n_slots > 0

    def found(self, sequence: Sequence, n_known: int) -> Iterable[KeptState]:
        """Yields the kept states that have read the sequence's first tokens, `n_known` at most,
        the longest first."""
        for kept in self.pool.longest_first():
            if kept.n_tokens <= n_known and sequence.key_of(kept.n_tokens) == kept.key:
                yield kept

    def admit(self, sequence: Sequence, source: KeptState | None, n_shared: int) -> bool:
        """Gives a sequence a slot, whose first step goes on from `source`; returns False, and
        changes nothing, where all slots are in use. Others began with `n_shared` tokens too."""
        pool = self.pool
        if not self.is_needed:
            return True
        if source is not None:
            pool.begin_reading(source)
        slot = pool.allocate()
        if slot is None and source is not None:
            pool.end_reading(source)
            slot, source = pool.take(source), None
        if slot is None:
            return False
        sequence.slot, sequence.source, sequence.n_shared = slot, source, n_shared
        return True

    def plan_copies(self, sequence: Sequence, n: int) -> None:
        """Takes slots for the states that the sequence's next `n` tokens leave for others."""
        if sequence.slot is None or not sequence.is_shared:
            return
        begin = sequence.n_computed
        for at in sorted({sequence.n_shared, sequence.n_prompt - 1}):
            if not begin < at <= begin + n or sequence.key_of(at) in self.pool:
                continue
            slot = self.pool.allocate()
            if slot is not None:
                sequence.copies.append((at, slot))

    def note_computed(self, sequence: Sequence) -> None:
        """Records that what was planned is computed."""
        if sequence.source is not None:
            self.pool.end_reading(sequence.source)
            sequence.source = None
        for at, slot in sequence.copies:
            self.pool.keep(slot, sequence.key_of(at), at)
        sequence.copies.clear()

    def leave(self, sequence: Sequence) -> None:
        """Takes its slot from a sequence; others find the state until it is evicted."""
        if sequence.slot is None:
            return
        if sequence.source is not None:  # nothing was computed yet
            self.pool.end_reading(sequence.source)
            self.pool.release(sequence.slot)
        elif sequence.is_shared and sequence.n_computed:
            n = sequence.n_computed
            self.pool.keep(sequence.slot, sequence.key_of(n), n)
        else:
            self.pool.release(sequence.slot)

    def check_integrity(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError where slots and sequences contradict each other."""
        if self.is_needed:
            owned = []
            for sequence in running:
                assert sequence.slot is not None, "a running sequence has no slot"
                owned += [sequence.slot, *(slot for _, slot in sequence.copies)]
            self.pool.check_integrity(owned)
