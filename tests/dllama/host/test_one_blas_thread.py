"""NumPy in a process of ours has no threads of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TASKS = Path("/proc/self/task")
COUNT = f"import os, dllama.cli, numpy; print(len(os.listdir('{TASKS}')))"


@pytest.mark.skipif(not TASKS.exists(), reason="no /proc here")
@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_threads_of_numpy(asked: str | None, threads: int) -> None:
    if threads > len(os.sched_getaffinity(0)):
        pytest.skip("OpenBLAS starts no more threads than there are cores")
    of_others = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    environment = of_others | ({} if asked is None else {"OPENBLAS_NUM_THREADS": asked})
    words = [sys.executable, "-c", COUNT]
    answer = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert int(answer.stdout) == threads
