"""Spares go to the disk beside the steps, where there is room, and nothing waits for them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.weights.spares import SpareInbox
from cluster.weights.store import WeightStore
from cluster.wire.messages import Chunk, Credit, Spares, Want
from dllama.errors import ProtocolError
from kernels.whole_files import Buffer

PIECES = [np.full(1000, i, np.uint8) for i in range(40)]
NAMES = [hashlib.sha256(piece.data).hexdigest() for piece in PIECES]
SPARES = Spares(
    np.frombuffer(bytes.fromhex("".join(NAMES)), np.uint8).reshape(-1, 32),
    np.full(len(PIECES), 1000, np.int32),
)


@pytest.fixture
def made() -> Iterator[list[SpareInbox]]:
    inboxes: list[SpareInbox] = []
    yield inboxes
    for inbox in inboxes:
        inbox.close()


def await_disk(inbox: SpareInbox) -> None:
    for writing in list(inbox._writing):
        writing.result()


def test_what_is_missing_is_asked_for_and_kept(tmp_path: Path, made: list[SpareInbox]) -> None:
    store = WeightStore(tmp_path, 1 << 30)
    for number in (3, 5):
        store.keep(NAMES[number], PIECES[number].data)
    made.append(SpareInbox(store))
    wanted = made[0].begin(SPARES).pieces.tolist()
    assert wanted == [n for n in range(len(PIECES)) if n not in (3, 5)]
    for number in wanted[:10]:
        assert Credit(1) in made[0].take(Chunk(number, 0, PIECES[number][:600]))
        made[0].take(Chunk(number, 600, PIECES[number][600:]))
    await_disk(made[0])
    assert all(store.read(NAMES[n]) == PIECES[n].tobytes() for n in wanted[:10])


def test_pieces_that_are_not_what_they_are_called_are_not_kept(
    tmp_path: Path, made: list[SpareInbox]
) -> None:
    store = WeightStore(tmp_path, 1 << 30)
    made.append(SpareInbox(store))
    made[0].begin(SPARES)
    made[0].take(Chunk(0, 0, PIECES[1]))
    await_disk(made[0])
    assert not list(tmp_path.iterdir())


def test_nothing_goes_for_spares_and_what_finds_no_room_is_not_sent(
    tmp_path: Path, made: list[SpareInbox]
) -> None:
    """Old pieces that would go for others stay."""
    store = WeightStore(tmp_path, 2500, clock=lambda: 0.0)
    store.keep(NAMES[39], PIECES[39].data)
    later = WeightStore(tmp_path, 2500, clock=lambda: 1e6)
    made.append(SpareInbox(later))
    answers: list[Credit | Want] = []
    for number in made[0].begin(SPARES).pieces.tolist():
        answers += made[0].take(Chunk(number, 0, PIECES[number]))
        await_disk(made[0])
        answers += made[0].answers()
    (no_more,) = [answer for answer in answers if isinstance(answer, Want)]
    assert len(no_more.pieces) == 0
    assert {file.name for file in tmp_path.iterdir()} == {NAMES[39], NAMES[0]}
    assert len(made[0].begin(SPARES).pieces) == 0, "the next are not asked for"


def test_a_worker_without_a_cache_asks_for_none(made: list[SpareInbox]) -> None:
    made.append(SpareInbox(WeightStore(Path("/nowhere"), 0)))
    assert len(made[0].begin(SPARES).pieces) == 0
    with pytest.raises(ProtocolError, match="piece of weights"):
        made[0].take(Chunk(0, 0, PIECES[0]))


def test_a_disk_that_stalls_holds_nothing_up(tmp_path: Path, made: list[SpareInbox]) -> None:
    """The root gets credit for what is written, and sends no more than that."""
    released = threading.Event()

    class Stalling(WeightStore):
        def keep(self, name: str, data: Buffer, *, may_evict: bool = True) -> bool:
            assert released.wait(60)
            return super().keep(name, data, may_evict=may_evict)

    made.append(SpareInbox(Stalling(tmp_path, 1 << 30)))
    made[0].begin(SPARES)
    for number in range(8):
        assert made[0].take(Chunk(number, 0, PIECES[number])) == []
    assert made[0].answers() == []
    released.set()
    await_disk(made[0])
    assert made[0].answers() == [Credit(1)] * 8 and made[0].answers() == []
    assert len(list(tmp_path.iterdir())) == 8
