"""A model is hashed once; a file that has changed, and a table that is damaged, are noticed."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from cluster.weights.digests import PieceDigests
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.sharding.pieces import Piece, SizedPiece, pieces_of, read_piece, whole_model
from dllama.sharding.plan import plan_for
from dllama.weight_source import WeightSource
from tests.toy_models import write_toy

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.gguf")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """The pieces that are read to be hashed."""
    seen: list[Piece] = []

    def read(source: WeightSource, sized: SizedPiece) -> np.ndarray:
        seen.append(sized.piece)
        return read_piece(source, sized)

    monkeypatch.setattr("cluster.weights.digests.read_piece", read)
    return seen


def digests_of(model: Path, folder: Path | None) -> dict[Piece, bytes]:
    source = open_model(model)
    digests = PieceDigests(source, folder)
    sized = [p for tiled in whole_model(source.config, source.tensors) for p in tiled.sized()]
    try:
        table = digests.of([p.piece for p in sized])
        return {p.piece: row.tobytes() for p, row in zip(sized, table, strict=True)}
    finally:
        digests.close()
        source.close()


def test_digests_are_those_of_the_bytes(model: Path, tmp_path: Path) -> None:
    source = open_model(model)
    known = digests_of(model, None)
    for shard in plan_for(source.config, source.tensors, [1.0, 1.0]):
        for sized in pieces_of(source.config, source.tensors, shard):
            raw = np.ascontiguousarray(read_piece(source, sized))
            assert hashlib.sha256(raw.tobytes()).digest() == known[sized.piece]
    source.close()


def test_a_second_start_hashes_nothing(model: Path, tmp_path: Path, hashed: list[Piece]) -> None:
    first = digests_of(model, tmp_path / "digests")
    assert len(hashed) == len(first)
    hashed.clear()
    assert digests_of(model, tmp_path / "digests") == first and not hashed


def test_a_changed_file_is_hashed_anew(model: Path, tmp_path: Path, hashed: list[Piece]) -> None:
    """Also where size and time of the file are what they were."""
    first = digests_of(model, tmp_path / "digests")
    before = model.stat()
    data = bytearray(model.read_bytes())
    data[-4] ^= 1
    model.write_bytes(bytes(data))
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    hashed.clear()
    second = digests_of(model, tmp_path / "digests")
    assert len(hashed) == len(second)
    assert len([piece for piece in first if first[piece] != second[piece]]) == 1
    assert len(list((tmp_path / "digests").iterdir())) == 1, "one table for one file"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_table_is_made_anew(
    model: Path, tmp_path: Path, damage: str, hashed: list[Piece], caplog: pytest.LogCaptureFixture
) -> None:
    first = digests_of(model, tmp_path / "digests")
    [file] = (tmp_path / "digests").iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[-1] ^= 1
    file.write_bytes({"cut": data[:-1], "flipped": data, "empty": b"", "other": b"x"}[damage])
    hashed.clear()
    assert digests_of(model, tmp_path / "digests") == first and hashed
    assert [r for r in caplog.records if r.levelno == logging.WARNING]
    hashed.clear()
    assert digests_of(model, tmp_path / "digests") == first and not hashed


def test_a_table_that_was_dropped_is_made_anew(
    model: Path, tmp_path: Path, hashed: list[Piece]
) -> None:
    source = open_model(model)
    digests = PieceDigests(source, tmp_path / "digests")
    [shard] = plan_for(source.config, source.tensors, [1.0])
    piece = pieces_of(source.config, source.tensors, shard)[0].piece
    before = digests.of([piece])
    digests.forget()
    assert not list((tmp_path / "digests").iterdir())
    hashed.clear()
    assert np.array_equal(digests.of([piece]), before) and hashed
    source.close()


def test_a_folder_that_cannot_be_written_is_one_warning(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert digests_of(model, Path("/proc/digests")) == digests_of(model, None)
    assert len([r for r in caplog.records if "not kept" in r.getMessage()]) == 1


def test_an_error_while_hashing_is_raised_where_it_is_waited_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: WeightSource, sized: SizedPiece) -> np.ndarray:
        raise ModelFileError("the file ends early")

    monkeypatch.setattr("cluster.weights.digests.read_piece", fail)
    with pytest.raises(ModelFileError, match="ends early"):
        digests_of(model, None)


def test_hashing_can_be_given_up(model: Path) -> None:
    source = open_model(model)
    digests = PieceDigests(source, None)
    digests.begin()
    digests.close()
    source.close()
