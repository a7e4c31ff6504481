"""`dllama run` on workers: the answer outlives one of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dllama.qtypes import QType
from tests.ports import own_worker_port
from tests.programs import start_worker
from tests.toy_models import write_toy


def test_the_answer_goes_on_when_a_worker_is_killed(tmp_path: Path) -> None:
    """Its daemon, with kill -9, as soon as there are words; the rest is computed without it."""
    model = write_toy(tmp_path / "toy.gguf", qtype=QType.Q8_0, n_layers=4, max_seq_len=2048)
    port = own_worker_port()
    words = [sys.executable, "-m", "dllama", "run", "-m", str(model), "--raw", "--temperature", "0",
             "-n", "600", "hello"]  # fmt: skip
    alone = subprocess.run(words, capture_output=True, timeout=120, check=True)
    worker = start_worker(tmp_path, port)
    try:
        with subprocess.Popen(
            [*words, "--workers", f"127.0.0.1:{port}", "--shares", "equal"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as run:  # fmt: skip
            assert run.stdout is not None and run.stderr is not None
            first = run.stdout.read(1)
            worker.kill()
            rest = run.stdout.read()
            said = run.stderr.read().decode()
    finally:
        worker.stop()
    assert run.returncode == 0, said
    assert len(alone.stdout) > 500
    assert first + rest == alone.stdout
    assert "The answer waits and goes on" in said
