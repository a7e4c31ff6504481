"""Tensors arrive as they left, from disk or from the root, and only what is missing is sent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cluster.weights.digests import PieceDigests
from cluster.weights.inbox import PieceInbox
from cluster.weights.store import WeightStore
from cluster.wire.messages import Chunk
from dllama.errors import ProtocolError
from dllama.qtypes import QType
from dllama.sharding import pieces
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_for
from dllama.weight_source import TensorInfo
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.weights.transfer import Transfer, transferred

SOURCE = ArraySource(small_config(dim=64, head_dim=16, hidden_dim=768, vocab_size=2500), QType.Q8_0)
ARRIVED = list[tuple[TensorInfo, np.ndarray]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of tests are cut into pieces as large ones are."""
    monkeypatch.setattr(pieces, "WHOLE_BYTES", 1000)


def store_in(folder: Path) -> WeightStore:
    return WeightStore(folder, 1 << 30)


def assert_same(arrived: ARRIVED, source: ArraySource, rank: int, shares: list[float]) -> None:
    shard = plan_for(source.config, source.tensors, shares)[rank]
    for (info, array), (want_info, want) in zip(arrived, cut_tensors(source, shard), strict=True):
        assert info == want_info and np.array_equal(array, want), info.name


@pytest.mark.parametrize("shares", [[1.0], [1.0, 2.0], [3.0, 1.0, 1.0], [5.0, 1.0, 1.0, 1.0, 1.0]])
def test_every_rank_gets_its_cut_and_finds_it_the_second_time(
    tmp_path: Path, shares: list[float]
) -> None:
    shards = plan_for(SOURCE.config, SOURCE.tensors, shares)
    for rank, shard in enumerate(shards):
        folder = tmp_path / str(rank)
        arrived, said = transferred(SOURCE, shard, store_in(folder))
        assert_same(arrived, SOURCE, rank, shares)
        assert said.found_bytes == said.n_wrong == 0 and said.received_bytes > 0
        arrived, again = transferred(SOURCE, shard, store_in(folder))
        assert_same(arrived, SOURCE, rank, shares)
        assert again.received_bytes == 0 and again.found_bytes == said.received_bytes


def test_every_chunk_is_progress() -> None:
    """A large tensor over a slow link is no rank that stands still."""
    transfer = Transfer(SOURCE, plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1])
    n_tensors = len(transfer.load())
    assert transfer.n_beats >= transfer.n_chunks + n_tensors > 2 * n_tensors


def test_another_plan_needs_little_more(tmp_path: Path) -> None:
    """Pieces are the same for all plans."""
    shards = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])
    transferred(SOURCE, shards[1], store_in(tmp_path))
    other = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0, 1.0])[2]
    arrived, said = transferred(SOURCE, other, store_in(tmp_path))
    assert_same(arrived, SOURCE, 2, [1.0, 1.0, 1.0])
    assert said.received_bytes == 0 and said.found_bytes > 0, "its part lies within the other's"


def test_an_interrupted_transfer_goes_on_where_it_was(tmp_path: Path) -> None:
    shard = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1]
    whole_bytes = transferred(SOURCE, shard)[1].received_bytes
    first = Transfer(SOURCE, shard, store_in(tmp_path))
    arriving = iter(first.rank.tensors())
    for _ in range(9):
        next(arriving)
    arriving.close()  # type: ignore[attr-defined]
    before = first.rank.loaded().received_bytes
    assert 0 < before < whole_bytes
    arrived, said = transferred(SOURCE, shard, store_in(tmp_path))
    assert_same(arrived, SOURCE, 1, [1.0, 1.0])
    assert said.received_bytes == whole_bytes - before and said.found_bytes == before


@pytest.mark.parametrize("content", [None, b"", b"noise"])
def test_damaged_pieces_are_asked_for_again(tmp_path: Path, content: bytes | None) -> None:
    """Also those that go after the rank has looked for them."""
    shard = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1]
    transferred(SOURCE, shard, store_in(tmp_path))
    files = sorted(tmp_path.iterdir())
    lost = files[::3]
    for file in files[1::5]:
        file.unlink()  # is missed at once

    class Vanishing(WeightStore):
        def read(self, name: str) -> bytes | None:
            if tmp_path / name in lost:
                if content is None:
                    (tmp_path / name).unlink(missing_ok=True)
                else:
                    (tmp_path / name).write_bytes(content)
            return super().read(name)

    transfer = Transfer(SOURCE, shard, Vanishing(tmp_path, 1 << 30))
    arrived = transfer.load()
    assert_same(arrived, SOURCE, 1, [1.0, 1.0])
    assert len(transfer.wants) > 2 and all(len(late) == 1 for late in transfer.wants[1:])
    assert transfer.feed.is_done
    again = transferred(SOURCE, shard, store_in(tmp_path))[1]
    assert again.received_bytes == 0, "they are kept again"


def test_only_changed_tensors_are_sent_of_a_changed_model(tmp_path: Path) -> None:
    shard = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1]
    transferred(SOURCE, shard, store_in(tmp_path))
    changed = ArraySource(SOURCE.config, QType.Q8_0)
    changed._arrays["layers.1.w1"] = changed._arrays["layers.1.w1"] ^ 1
    arrived, said = transferred(changed, shard, store_in(tmp_path))
    assert_same(arrived, changed, 1, [1.0, 1.0])
    w1 = next(info for info, _ in arrived if info.name == "layers.1.w1")
    whole_pieces = 512 * w1.row_bytes  # of 768 rows, 384 are the rank's
    assert said.received_bytes == whole_pieces


def test_pieces_that_are_not_what_their_digests_say_are_used_and_not_kept(tmp_path: Path) -> None:
    """What the root sends is its model; a table of digests that lies is told of."""

    class Lying(PieceDigests):
        def of(self, wanted):  # type: ignore[no-untyped-def]
            digests = super().of(wanted).copy()
            digests[3] ^= 1
            return digests

    shard = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1]
    arrived, said = transferred(SOURCE, shard, store_in(tmp_path), Lying(SOURCE, None))
    assert_same(arrived, SOURCE, 1, [1.0, 1.0])
    assert said.n_wrong == 1
    for file in tmp_path.iterdir():
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.name


def test_a_read_only_or_absent_folder_changes_nothing() -> None:
    shard = plan_for(SOURCE.config, SOURCE.tensors, [1.0, 1.0])[1]
    arrived, said = transferred(SOURCE, shard, store_in(Path("/proc/weights")))
    assert_same(arrived, SOURCE, 1, [1.0, 1.0])
    assert said.found_bytes == said.n_wrong == 0


def chunk(piece: int, offset: int, n_bytes: int) -> Chunk:
    return Chunk(piece, offset, np.zeros(n_bytes, np.uint8))


@pytest.mark.parametrize(
    "bad",
    [chunk(0, 0, 4), chunk(9, 0, 4), chunk(1, 4, 4), chunk(1, 0, 17), chunk(1, 0, 0)],
    ids=["not wanted", "none of ours", "not its beginning", "too long", "empty"],
)
def test_a_chunk_that_is_not_wanted_is_an_error(bad: Chunk) -> None:
    inbox = PieceInbox([16, 16])
    inbox.want([1])
    with pytest.raises(ProtocolError, match="piece of weights"):
        inbox.add(bad)


def test_pieces_do_not_mix() -> None:
    inbox = PieceInbox([16, 16])
    inbox.want([0, 1])
    assert inbox.add(chunk(0, 0, 8)) is None
    with pytest.raises(ProtocolError, match="piece of weights"):
        inbox.add(chunk(1, 0, 16))
    with pytest.raises(ProtocolError, match="at 12 of the piece of weights 0"):
        inbox.add(chunk(0, 12, 4))
    assert inbox.add(chunk(0, 8, 8)) is not None
    with pytest.raises(ProtocolError, match="piece of weights"):
        inbox.add(chunk(0, 0, 16))
    assert inbox.take(0) is not None and inbox.take(0) is None
