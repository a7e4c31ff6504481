"""A rank's file of KV pages comes back bit by bit, into any pages, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.errors import SessionFileError
from dllama.qtypes import QType
from dllama.runtime.kv_files import FilePart, mark_of, model_fingerprint, read_pages, write_pages
from kernels.attention.kv_pages import KvPages, kv_pages
from tests.cluster.array_source import ArraySource, small_config

MARK = mark_of(bytes(32), b"stamp", 0)
PAGES = [5, 0, 3]


def no_tick() -> None:
    """Nobody watches."""


def filled(kind: str = "f16", seed: int = 0) -> KvPages:
    """Eight pages of two layers, of any bits."""
    kv = kv_pages(kind, 2, 8, 3, 8)
    rng = np.random.default_rng(seed)
    for array in kv:
        array[:] = rng.integers(0, 256, array.shape, np.uint8)
    return kv


def parts(kv: KvPages, pages: list[int]) -> list[FilePart]:
    """The same pages of the layers of both kinds: the first one has a window."""
    near, far = (KvPages(*(array[layers] for array in kv)) for layers in (slice(1), slice(1, 2)))
    return [FilePart(far, pages), FilePart(near, pages)]


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_pages_come_back_into_others(tmp_path: Path, kind: str) -> None:
    path, kept, kv = tmp_path / "a" / "b.kv", filled(kind), filled(kind, seed=1)
    n_bytes = write_pages(path, parts(kept, PAGES), MARK, no_tick)
    assert n_bytes == path.stat().st_size and list(path.parent.iterdir()) == [path]
    before = KvPages(*(array.copy() for array in kv))
    assert read_pages(path, parts(kv, [1, 2, 7]), MARK, no_tick) == n_bytes
    for array, source, old in zip(kv, kept, before, strict=True):
        assert np.array_equal(array[:, [1, 2, 7]], source[:, PAGES])
        assert np.array_equal(array[:, [0, 3, 4, 5, 6]], old[:, [0, 3, 4, 5, 6]])


@pytest.mark.parametrize("place", [100, -40, -1])
def test_a_bit_that_is_wrong_is_seen(tmp_path: Path, place: int) -> None:
    """In the first page, in the last one, in the checksum itself."""
    path = tmp_path / "a.kv"
    write_pages(path, parts(filled(), PAGES), MARK, no_tick)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    with pytest.raises(SessionFileError, match="checksum is wrong"):
        read_pages(path, parts(filled(), PAGES), MARK, no_tick)


def test_a_mark_is_one_models_one_saves_and_one_ranks(tmp_path: Path) -> None:
    path = tmp_path / "a.kv"
    write_pages(path, parts(filled(), PAGES), MARK, no_tick)
    others = [(bytes([1]) * 32, b"stamp", 0), (bytes(32), b"other", 0), (bytes(32), b"stamp", 1)]
    for fingerprint, stamp, rank in others:
        with pytest.raises(SessionFileError, match="another save"):
            read_pages(path, parts(filled(), PAGES), mark_of(fingerprint, stamp, rank), no_tick)


def test_a_fingerprint_knows_config_weights_types_and_cut() -> None:
    config = small_config()
    known = model_fingerprint(ArraySource(config), "1,1")
    assert known == model_fingerprint(ArraySource(config), "1,1") and len(known) == 32
    others = [
        model_fingerprint(ArraySource(config, seed=1), "1,1"),
        model_fingerprint(ArraySource(config, QType.Q8_0), "1,1"),
        model_fingerprint(ArraySource(small_config(rope_theta=500.0)), "1,1"),
        model_fingerprint(ArraySource(config), "2,1"),
    ]
    assert len({known, *others}) == 5
