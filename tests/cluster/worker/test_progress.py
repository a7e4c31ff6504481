"""The counters that a session's process writes and its daemon reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.worker.progress import ProgressFile
from tests.cluster.worker_process import HOUSE
from tests.leaks import no_leaks

__all__ = ["no_leaks"]
BEAT = """
import sys
from pathlib import Path
from cluster.worker.progress import ProgressFile
ProgressFile(Path(sys.argv[1]), is_owner=False).beat()
"""


@pytest.mark.usefixtures("no_leaks")
def test_what_another_process_counts_is_seen_and_nothing_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    progress = ProgressFile.create()
    assert not list(tmp_path.iterdir()), "it would stay if the daemon were killed now"
    subprocess.run(
        [sys.executable, "-c", BEAT, str(progress.path)],
        cwd=HOUSE, check=True, pass_fds=progress.descriptors,
    )  # fmt: skip
    assert progress.total() == 1
    progress.close()
