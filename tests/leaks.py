"""A fixture that fails a test which leaves file descriptors, threads or child processes behind.

Name it in a test or, for a whole file, in `pytestmark = pytest.mark.usefixtures("no_leaks")` after
importing it from here into a conftest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SETTLE_S = 5.0  # ZeroMQ's threads and the system's sockets end a moment after close()


def open_files() -> dict[str, str]:
    """Descriptors of this process and what they lead to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except OSError:
            continue  # the descriptor of the listing itself
    return found


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Descriptors, threads and children after the test are those from before."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("counting descriptors needs /proc")
    files, threads = open_files(), set(threading.enumerate())
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    deadline = time.monotonic() + SETTLE_S
    while True:
        new_files = {k: v for k, v in open_files().items() if k not in files}
        new_threads = set(threading.enumerate()) - threads
        new_children = [
            child
            for child in psutil.Process().children(recursive=True)
            if child.pid not in children
        ]
        if not new_files and not new_threads and not new_children:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {new_files}, {new_threads}, {new_children}")
        time.sleep(0.05)
