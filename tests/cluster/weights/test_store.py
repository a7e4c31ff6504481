"""What is read from a store has the right bytes or is absent, whatever happens to the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.weights import store as store_module
from cluster.weights.eviction import IN_USE_S
from cluster.weights.store import ABANDONED_S, WeightStore
from kernels.whole_files import TEMPORARY
from tests.cluster.worker_process import HOUSE

N_BYTES = 1000
PIECES = [bytes([i]) * N_BYTES for i in range(8)]
NAMES = [hashlib.sha256(data).hexdigest() for data in PIECES]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class StoreMachine(RuleBasedStateMachine):
    """Two processes on one folder, and everything that can happen to its files."""

    @initialize()
    def make(self) -> None:
        import tempfile

        self.home = tempfile.TemporaryDirectory()
        self.folder = Path(self.home.name) / "weights"
        self.clock = Clock()
        self.stores = [WeightStore(self.folder, 4 * N_BYTES, self.clock) for _ in range(2)]

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.home.cleanup()

    which = st.sampled_from(range(len(PIECES)))
    who = st.sampled_from([0, 1])

    @rule(who=who, piece=which)
    def keep(self, who: int, piece: int) -> None:
        if self.stores[who].keep(NAMES[piece], PIECES[piece]):
            assert (self.folder / NAMES[piece]).read_bytes() == PIECES[piece]

    @rule(who=who, piece=which)
    def read(self, who: int, piece: int) -> None:
        is_whole = (self.folder / NAMES[piece]).exists() and (
            self.folder / NAMES[piece]
        ).read_bytes() == PIECES[piece]
        found = self.stores[who].read(NAMES[piece])
        assert found == (PIECES[piece] if is_whole else None)

    @rule(who=who, piece=which)
    def look(self, who: int, piece: int) -> None:
        assert self.stores[who].has(NAMES[piece]) == (self.folder / NAMES[piece]).exists()

    @rule(piece=which, n_bytes=st.integers(0, N_BYTES - 1))
    def truncate(self, piece: int, n_bytes: int) -> None:
        if (self.folder / NAMES[piece]).exists():
            os.truncate(self.folder / NAMES[piece], n_bytes)

    @rule(piece=which, other=which)
    def overwrite(self, piece: int, other: int) -> None:
        if self.folder.exists():
            (self.folder / NAMES[piece]).write_bytes(PIECES[other])

    @rule(piece=which)
    def remove(self, piece: int) -> None:
        (self.folder / NAMES[piece]).unlink(missing_ok=True)

    @rule(piece=which, n_bytes=st.integers(0, N_BYTES))
    def crash_while_writing(self, piece: int, n_bytes: int) -> None:
        if self.folder.exists():
            (self.folder / f"{TEMPORARY}x{piece}").write_bytes(PIECES[piece][:n_bytes])

    @rule(seconds=st.sampled_from([1.0, IN_USE_S, ABANDONED_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(who=who)
    def restart(self, who: int) -> None:
        self.stores[who] = WeightStore(self.folder, 4 * N_BYTES, self.clock)

    @invariant()
    def nothing_is_read_that_is_not_right(self) -> None:
        if hasattr(self, "folder") and self.folder.exists():
            for piece, name in enumerate(NAMES):
                fresh = WeightStore(self.folder, 1 << 30, self.clock)
                kept = (self.folder / name).read_bytes() if (self.folder / name).exists() else None
                assert fresh.read(name) in (PIECES[piece], None)
                if kept == PIECES[piece]:
                    assert (self.folder / name).exists(), "a whole piece is not removed by reading"


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestStoreMachine = StoreMachine.TestCase


def make(folder: Path, max_bytes: int = 1 << 30, clock: Clock | None = None) -> WeightStore:
    return WeightStore(folder, max_bytes, clock or Clock())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_the_least_recently_used_go_and_those_in_use_stay(tmp_path: Path) -> None:
    clock = Clock()
    store = make(tmp_path, 4 * N_BYTES, clock)
    for name, data in zip(NAMES[:4], PIECES[:4], strict=True):
        assert store.keep(name, data)
        clock.now += 1
    assert make(tmp_path, 4 * N_BYTES, clock).keep(NAMES[4], PIECES[4]) is False, "all are in use"
    clock.now += IN_USE_S
    assert store.has(NAMES[0])
    assert make(tmp_path, 4 * N_BYTES, clock).keep(NAMES[4], PIECES[4])
    left = {NAMES.index(file.name) for file in tmp_path.iterdir()}
    assert {0, 4} <= left and 1 not in left and len(left) <= 4


def test_other_files_of_a_folder_are_not_touched(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "thesis.tex").write_text("x" * 5000)
    (tmp_path / (TEMPORARY + "old")).write_text("left of a killed process")
    os.utime(tmp_path / (TEMPORARY + "old"), (clock.now, clock.now))
    clock.now += ABANDONED_S + 1
    for i in range(8):
        make(tmp_path, 2 * N_BYTES, clock).keep(NAMES[i], PIECES[i])
        clock.now += IN_USE_S + 1
    names = {file.name for file in tmp_path.iterdir()}
    assert "thesis.tex" in names and TEMPORARY + "old" not in names
    assert len(names) <= 3


def test_with_no_room_allowed_nothing_is_looked_for(tmp_path: Path) -> None:
    make(tmp_path).keep(NAMES[0], PIECES[0])
    off = make(tmp_path, 0)
    assert not off.has(NAMES[0]) and off.read(NAMES[0]) is None
    assert not off.keep(NAMES[1], PIECES[1]) and not off.is_writable


@pytest.mark.parametrize("damage", [b"", PIECES[0][:-1], PIECES[1], PIECES[0] + b"x"])
def test_a_damaged_file_is_told_once_and_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    store = make(tmp_path)
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes(damage if name == NAMES[0] else b"too short")
        assert store.has(name) and store.read(name) is None
        assert not (tmp_path / name).exists()
    assert len(warnings(caplog)) == 1 and "damaged" in warnings(caplog)[0]
    assert store.n_damaged == 2
    assert store.keep(NAMES[0], PIECES[0]) and store.read(NAMES[0]) == PIECES[0]


def test_a_folder_that_cannot_be_made_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    store = make(tmp_path / "file" / "weights")
    for name, data in zip(NAMES, PIECES, strict=True):
        assert not store.has(name) and store.read(name) is None
        assert not store.keep(name, data)
    assert any("--cache-dir" in line for line in warnings(caplog)) and not store.is_writable
    assert len(warnings(caplog)) <= 2, "one for reading, one for writing"


def test_a_folder_that_cannot_be_used_is_found_before_there_is_a_piece(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "weights", tmp_path / ("x" * 300)):
        caplog.clear()
        store = make(folder)
        store.check()
        (line,) = warnings(caplog)
        assert f"weights are not kept in {folder}" in line and "--cache-dir" in line
        assert not store.is_writable
        assert not store.keep(NAMES[0], PIECES[0]) and not store.has(NAMES[0])
        assert len(warnings(caplog)) == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_sound_folder_is_made_and_left_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for max_bytes in (1 << 30, 0):
        make(tmp_path / "weights", max_bytes).check()
    make(tmp_path / "unused", 0).check()
    assert not warnings(caplog)
    assert list((tmp_path / "weights").iterdir()) == [] and not (tmp_path / "unused").exists()


def test_a_full_disk_is_told_once_and_leaves_nothing_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of files is limited in a process of its own, as a disk that fills while it is
    written to."""
    code = (
        "import resource, signal, sys, logging, hashlib; from pathlib import Path;"
        "from cluster.weights.store import WeightStore;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600));"
        "logging.basicConfig(); store = WeightStore(Path(sys.argv[1]), 1 << 30);"
        "small, large = b'a' * 500, b'b' * 1000; name = lambda d: hashlib.sha256(d).hexdigest();"
        "print(store.keep(name(small), small), store.keep(name(large), large),"
        " store.keep(name(small), small), store.read(name(small)) == small)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=HOUSE, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(HOUSE)}, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "False", "False", "True"], done.stderr
    assert done.stderr.count("weights are not kept") == 1
    assert [file.name for file in tmp_path.iterdir()] == [hashlib.sha256(b"a" * 500).hexdigest()]


def test_what_others_have_written_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RESCAN_BYTES", 1)
    clock = Clock()
    first, second = (make(tmp_path, 4 * N_BYTES, clock) for _ in range(2))
    for i in range(4):
        (first if i % 2 else second).keep(NAMES[i], PIECES[i])
    clock.now += IN_USE_S + 1
    assert first.keep(NAMES[4], PIECES[4])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 4 * N_BYTES


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_another_user_is_read(tmp_path: Path) -> None:
    make(tmp_path).keep(NAMES[0], PIECES[0])
    tmp_path.chmod(0o555)
    try:
        store = make(tmp_path)
        assert store.has(NAMES[0]) and store.read(NAMES[0]) == PIECES[0]
        assert not store.keep(NAMES[1], PIECES[1])
    finally:
        tmp_path.chmod(0o755)
