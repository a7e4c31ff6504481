"""Plain TCP exchanges as many bytes as ranks do, however large they are, and tells its times apart
as ranks do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.lan.exchanges import Spent, raw_tcp_words, read_spent
from benchmarks.lan.floor import compiled, why_no_floor
from benchmarks.namespaces import await_listening
from tests.ports import own_port

HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    why_not = why_no_floor()
    if why_not is not None:
        pytest.skip(why_not)
    return compiled(tmp_path_factory.mktemp("floor"))


class Ends:
    """A program that listens, and those that connect to it."""

    def __init__(self, program: Path, port: int, listening: subprocess.Popen[str]) -> None:
        self._program, self._port, self._listening = str(program), str(port), listening

    def connect(self, words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._program, HOST, self._port, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, words: list[str]) -> list[Spent]:
        with self.connect(words) as asking:
            said, complaint = asking.communicate(timeout=120)
        assert asking.returncode == 0, complaint
        return read_spent(said)

    def heard(self, n_tokens: int) -> list[Spent]:
        """Returns what the one that listens prints for the next tokens."""
        assert self._listening.stdout is not None
        lines = [self._listening.stdout.readline() for _ in range(n_tokens)]
        return read_spent("".join(lines))

    def stop_listening(self) -> None:
        self._listening.terminate()
        self._listening.wait(60)


@contextmanager
def both_ends(program: Path) -> Iterator[Ends]:
    port = own_port()
    words = [str(program), "listen", HOST, str(port)]
    listening = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        await_listening(listening.pid, port, 60)
        yield Ends(program, port, listening)
    finally:
        listening.kill()
        listening.wait()
        assert listening.stdout is not None
        listening.stdout.close()


@pytest.mark.parametrize("looks", [False, True])
def test_both_ends_send_more_than_a_connection_holds(program: Path, looks: bool) -> None:
    with both_ends(program) as ends:
        asked = ends.run(raw_tcp_words(20 << 20, 2, 3, work_us=1, looks=looks))
        heard = ends.heard(3)
    for times in (asked, heard):
        assert len(times) == 3 and all(spent.network_ms > 0 for spent in times)


def test_what_the_other_computes_longer_is_waited_for(program: Path) -> None:
    with both_ends(program) as ends:
        asked = ends.run(raw_tcp_words(8, 5, 4, work_us=2000, read_bytes=1 << 20, looks=False))
        heard = ends.heard(4)
    for own, other in zip(asked, heard, strict=True):
        assert own.compute_ms >= 10 and other.compute_ms >= 10
        # Of each exchange one end waits, and no longer than the other has computed.
        assert own.wait_ms <= other.compute_ms and other.wait_ms <= own.compute_ms


def test_memory_is_read_once_a_token(program: Path) -> None:
    with both_ends(program) as ends:
        few, many = (
            ends.run(raw_tcp_words(8, 4, 5, read_bytes=n_bytes, looks=False))
            for n_bytes in (1 << 16, 1 << 26)
        )
    least_few, least_many = (min(s.compute_ms for s in steps) for steps in (few, many))
    assert least_many > 8 * least_few, "a thousand times as many bytes"


def test_an_end_that_goes_away_ends_the_other(program: Path) -> None:
    with both_ends(program) as ends:
        with under_way(ends) as leaving:
            leaving.kill()
        assert len(ends.run(raw_tcp_words(99, 9, 2, looks=False))) == 2, "the next one is served"
        with under_way(ends) as staying:
            ends.stop_listening()
            complaint = staying.communicate(timeout=60)[1]
        assert staying.returncode == 1 and "has gone away" in complaint


def under_way(ends: Ends) -> subprocess.Popen[str]:
    """Returns a program that has exchanged a token, and will exchange for long."""
    connected = ends.connect(raw_tcp_words(99, 9, 1_000_000, work_us=100, looks=False))
    assert connected.stdout is not None
    assert connected.stdout.readline()
    return connected


def test_numbers_that_make_no_sense_are_refused(program: Path) -> None:
    for words in ([], ["7", "1", "1", "0", "0", "0"], ["8", "1", "1", "0", "0", "2"]):
        done = subprocess.run(
            [str(program), HOST, "1", *words], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2 and "usage:" in done.stderr
