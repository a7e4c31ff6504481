"""Processes that need the same file make it one at a time, and none waits for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kernels.turns import turn

WAIT_S = 60.0
HOLDS = """
import sys
from pathlib import Path
from kernels.turns import turn

with turn(Path(sys.argv[1]), 0.0):
    print("mine", flush=True)
    sys.stdin.read()
"""


def in_threads(n: int, body: Callable[[int], None]) -> None:
    """Runs a body in n threads at once, each with its number."""
    threads = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_is_in_its_turn_at_a_time(tmp_path: Path) -> None:
    inside, most, made = list[int](), list[int](), tmp_path / "new" / "file"

    def make(i: int) -> None:
        with turn(made, WAIT_S):  # a lock of an open file, so that threads have turns too
            inside.append(i)
            most.append(len(inside))
            if not made.exists():
                made.write_text(str(i))
            inside.remove(i)

    in_threads(8, make)
    assert most == [1] * 8
    assert list(made.parent.iterdir()) == [made], "nothing is left of the turns"


def test_who_waited_for_a_turn_that_has_ended_is_alone_in_the_next(tmp_path: Path) -> None:
    """The lock's file is removed with the turn: one who waited holds a lock on nothing, and who
    comes then makes the file anew. Short turns, so that many end while others wait."""
    made, inside, most = tmp_path / "file", list[int](), list[int]()

    def take(i: int) -> None:
        for _ in range(20):
            with turn(made, WAIT_S):
                inside.append(i)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.remove(i)

    in_threads(6, take)
    assert most == [1] * 120


def test_a_process_keeps_its_turn_until_it_ends_and_others_wait_so_long_at_most(
    tmp_path: Path,
) -> None:
    made = tmp_path / "file"
    command = [sys.executable, "-c", HOLDS, str(made)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"mine\n"
        (lock,) = tmp_path.iterdir()
        with turn(made, 0.05):
            assert lock.exists(), "it is still the other's turn"
        holder.kill()
    with turn(made, WAIT_S):
        pass
    assert not lock.exists()


def test_where_nothing_can_be_written_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with turn(tmp_path / "file" / "kernel", WAIT_S), turn(tmp_path / "file" / "kernel", WAIT_S):
        pass
