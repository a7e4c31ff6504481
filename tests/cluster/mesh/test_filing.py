"""What ranks send early is kept, once and within bounds; what no rank sends is an error that names
the sender."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.mesh import filing
from cluster.mesh.filing import MAX_AHEAD, MAX_BLOCK_BYTES, MAX_BLOCKS, Arrived, Filing, Key, Phase
from dllama.errors import ProtocolError
from kernels.wire.places import SESSION_WORDS


def arrived(n_bytes: int = 4) -> Arrived:
    return Arrived(memoryview(bytes(n_bytes)), 0)


def filing_of(rank: int, sequence: int = 5) -> Filing:
    made = Filing(rank, np.zeros(SESSION_WORDS, np.int64))
    made.sequence = sequence
    made.names = ["the root", "h1:9998", "h2:9998"]
    return made


def test_messages_of_later_collectives_wait_until_they_are_due() -> None:
    kept = filing_of(0)
    early = Key(5 + MAX_AHEAD, Phase.PARTIAL, 3, 2)
    kept.keep(early, arrived())
    assert early in kept and Key(5, Phase.PARTIAL, 3, 2) not in kept
    assert len(kept.take(early).payload) == 4 and early not in kept


@pytest.mark.parametrize(
    "key",
    [
        Key(4, Phase.PARTIAL, 0, 1),  # over
        Key(6 + MAX_AHEAD, Phase.PARTIAL, 0, 1),
        Key(5, Phase.PARTIAL, 0, 3),  # there are three ranks
        Key(5, Phase.PARTIAL, 0, 0),  # itself
        Key(5, Phase.HELLO, 0, 1),
        Key(5, 4, 0, 1),
        Key(5, Phase.PARTIAL, MAX_BLOCKS, 1),
        Key(5, Phase.PART, 1, 1),
    ],
)
def test_what_no_rank_sends_is_an_error(key: Key) -> None:
    with pytest.raises(ProtocolError, match="rank"):
        filing_of(0).keep(key, arrived())


def test_pieces_are_for_rank_0_and_hellos_come_first() -> None:
    with pytest.raises(ProtocolError, match=r"rank 2 at h2:9998 sent .* of phase 3"):
        filing_of(1).keep(Key(5, Phase.PART, 0, 2), arrived())
    with pytest.raises(ProtocolError):
        filing_of(1, sequence=0).keep(Key(0, Phase.PARTIAL, 0, 2), arrived())
    filing_of(1, sequence=0).keep(Key(0, Phase.HELLO, 0, 2), arrived(24))


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_message_that_is_sent_again_names_its_sender(is_taken: bool) -> None:
    kept, key = filing_of(0), Key(5, Phase.ROWS, 0, 1)
    kept.keep(key, arrived())
    if is_taken:
        kept.take(key)
    with pytest.raises(ProtocolError, match="rank 1 at h1:9998 sent block 0 of collective 5 twice"):
        kept.keep(key, arrived())


def test_long_payloads_and_many_of_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = filing_of(0)
    with pytest.raises(ProtocolError, match="no rank does"):
        kept.keep(Key(5, Phase.PARTIAL, 0, 1), arrived(MAX_BLOCK_BYTES + 1))
    monkeypatch.setattr(filing, "MAX_EARLY_BYTES", 100)
    kept.keep(Key(5, Phase.PARTIAL, 0, 1), arrived(60))
    kept.keep(Key(5, Phase.PARTIAL, 0, 2), arrived(60))  # each rank has its own room
    with pytest.raises(ProtocolError, match="more than rank 0 can keep"):
        kept.keep(Key(5, Phase.PARTIAL, 1, 1), arrived(60))
    kept.take(Key(5, Phase.PARTIAL, 0, 1))
    kept.keep(Key(5, Phase.PARTIAL, 1, 1), arrived(60))


def test_a_collective_that_goes_on_is_still_sent_for() -> None:
    kept = filing_of(0)
    kept.begin()
    kept.sequence = 6
    first = Key(5, Phase.PARTIAL, 0, 1)
    kept.keep(first, arrived())
    kept.take(first)
    with pytest.raises(ProtocolError, match="twice"):
        kept.keep(first, arrived())
    kept.end(5)
    with pytest.raises(ProtocolError, match="is at collective 6"):
        kept.keep(Key(5, Phase.PARTIAL, 1, 1), arrived())
