"""Shifts, saves and restores over real worker processes: all ranks do as one machine does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.worker.launcher import SESSION_COMMAND
from dllama.errors import SessionFileError
from dllama.formats import open_model
from dllama.kv import KvHeld, KvShift
from dllama.runner import Runner
from dllama.runtime.rank import RankModel
from tests.cluster.steps import prefill
from tests.cluster.worker_process import WorkerProcess
from tests.local_model import local_runner
from tests.toy_models import write_toy

N_PAGES, MAX_STEP_TOKENS = 8, 64
TOKENS = [(7 * k) % 350 for k in range(50)]
STAMP = b"a stamp of a day"
HELD = KvHeld.of([0, 1])
SHIFT = KvShift(50, 5, 22, np.array([0, 1], np.int32), np.array([3], np.int32))


def after_shift(runner: Runner) -> np.ndarray:
    """Logits behind one more token, once 22 of 50 are forgotten."""
    runner.run(prefill(TOKENS))
    runner.shift(SHIFT)
    step = prefill([9], start=28)
    step.pages[:] = 3
    [row] = runner.run(step)
    return row.logits.copy()


@pytest.mark.timeout(400)
def test_a_cluster_shifts_saves_and_restores(
    tmp_path: Path, start_worker: Callable[..., WorkerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLLAMA_SESSIONS", str(tmp_path / "workers"))
    path = write_toy(tmp_path / "toy.gguf")
    with local_runner(path, n_pages=N_PAGES) as solo:
        expected = after_shift(solo)
    workers = [start_worker(session_command=SESSION_COMMAND) for _ in range(2)]
    config = ClusterConfig(
        [w.address for w in workers], N_PAGES, MAX_STEP_TOKENS, threads=1, kv_dir=tmp_path / "root"
    )
    runner = ClusterRunner(open_model(path), config, RankModel.load)
    try:
        runner.start()
        assert np.abs(after_shift(runner) - expected).max() < 1e-4
        [before] = runner.run(prefill([5], start=50))  # the old pages are as they were
        n_bytes = runner.save_kv("chat", HELD, STAMP)
        files = [*(tmp_path / "root").iterdir(), *(tmp_path / "workers").iterdir()]
        assert len(files) == 3 and n_bytes == sum(file.stat().st_size for file in files)
        runner.run(prefill([1] * 60))
        assert runner.load_kv("chat", HELD, STAMP) == n_bytes
        [again] = runner.run(prefill([5], start=50))
        assert np.array_equal(again.logits, before.logits)
        for name, stamp in (("chat", b"another stamp of"), ("missing", STAMP)):
            with pytest.raises(SessionFileError):
                runner.load_kv(name, HELD, stamp)
        files[-1].write_bytes(files[-1].read_bytes()[:-1])  # one worker's is cut short
        with pytest.raises(SessionFileError, match="cut short"):
            runner.load_kv("chat", HELD, STAMP)
        assert np.abs(after_shift(runner) - expected).max() < 1e-4  # nobody has left for that
    finally:
        runner.close()
