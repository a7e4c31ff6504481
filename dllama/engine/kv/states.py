"""The slots of sequences' states, in models some of whose layers keep a state in place of keys and
values.

A state has read all tokens up to its own; it cannot be cut to fewer. So each running sequence owns
a slot, and further slots keep states as they were after certain tokens: a sequence that begins with
these goes on from there. Eviction is least recently used first. Knows numbers only, no arrays.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptState:
    """A state that can be found: the key of the tokens that it has read, and their number."""

    slot: int
    key: bytes
    n_tokens: int


class StatePool:
    """Slots 0 .. n_slots - 1, each free, owned by a sequence, or with a state that is kept."""

    def __init__(self, n_slots: int) -> None:
        self.n_slots = n_slots
        self._free = list(range(n_slots - 1, -1, -1))  # a stack: memory is touched when needed
        self._owned: set[int] = set()
        self._kept: OrderedDict[bytes, KeptState] = OrderedDict()  # least recently used first
        self._readers: Counter[bytes] = Counter()  # sequences that are still to read a kept state

    @property
    def n_free(self) -> int:
        """Slots that can be allocated: kept states that nobody is still to read are evicted."""
        return len(self._free) + len(self._kept) - len(self._readers)

    @property
    def n_kept(self) -> int:
        return len(self._kept)

    def allocate(self) -> int | None:
        """Returns a slot with an owner; None where all are in use."""
        if self._free:
            slot = self._free.pop()
        else:
            oldest = next((key for key in self._kept if key not in self._readers), None)
            if oldest is None:
                return None
            slot = self._kept.pop(oldest).slot
        self._owned.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Takes a slot from its owner."""
        self._owned.remove(slot)
        self._free.append(slot)

    # ---- kept states
    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def keep(self, slot: int, key: bytes, n_tokens: int) -> None:
        """Lets others find the state in an owned slot, which loses its owner; a second state of the
        same tokens is dropped."""
        if key in self._kept:
            self._kept.move_to_end(key)
            self.release(slot)
            return
        self._owned.remove(slot)
        self._kept[key] = KeptState(slot, key, n_tokens)

    def longest_first(self) -> list[KeptState]:
        """Returns all states that are kept."""
        return sorted(self._kept.values(), key=lambda kept: -kept.n_tokens)

    def take(self, kept: KeptState) -> int | None:
        """Returns the slot of a kept state, which can be found no more, with an owner; None where
        sequences are still to read it."""
        if kept.key in self._readers:
            return None
        del self._kept[kept.key]
        self._owned.add(kept.slot)
        return kept.slot

    def begin_reading(self, kept: KeptState) -> None:
        """Holds a kept state until `end_reading`: a sequence goes on from it in its next step."""
        self._kept.move_to_end(kept.key)
        self._readers[kept.key] += 1

    def end_reading(self, kept: KeptState) -> None:
        self._readers[kept.key] -= 1
        if not self._readers[kept.key]:
            del self._readers[kept.key]

    def check_integrity(self, owned: Iterable[int]) -> None:
        """Raises AssertionError unless every slot is either free, kept, or one of `owned`."""
        owners = list(owned)
        assert sorted(owners) == sorted(self._owned), "owners and slots contradict each other"
        slots = [*self._free, *owners, *(kept.slot for kept in self._kept.values())]
        assert sorted(slots) == list(range(self.n_slots)), "a slot is lost, or is in two places"
        assert set(self._readers) <= set(self._kept), "a state is gone that is still to be read"
