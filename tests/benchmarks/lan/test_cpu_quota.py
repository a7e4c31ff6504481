"""Files of both versions of cgroups, and the real thing where this machine lets us."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.lan.cpu_quota import CpuQuota, why_no_quota


def test_both_versions_have_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_quota(tmp_path) is not None
    (tmp_path / "cgroup.subtree_control").write_text("memory cpu\n")
    assert why_no_quota(tmp_path) is None
    group = CpuQuota(0.5, tmp_path)
    group._folder.mkdir()
    (group._folder / "cpu.max").touch()
    group.limit(0.5)
    assert (group._folder / "cpu.max").read_text() == "5000 10000"
    group.limit(None)
    assert (group._folder / "cpu.max").read_text() == "max"
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").touch()
    older = CpuQuota(2.0, tmp_path)
    assert older._folder.parent == tmp_path / "cpu"
    older._folder.mkdir()
    (older._folder / "cpu.cfs_quota_us").touch()
    older.limit(2.0)
    assert (older._folder / "cpu.cfs_period_us").read_text() == "10000"
    assert (older._folder / "cpu.cfs_quota_us").read_text() == "20000"


def test_a_process_gets_no_more_than_its_part() -> None:
    why_not = why_no_quota()
    if why_not is not None:
        pytest.skip(why_not)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with CpuQuota(0.1) as quota:
            quota.hold(busy.pid)
            before = sum(psutil.Process(busy.pid).cpu_times()[:2])
            began = time.monotonic()
            time.sleep(1.0)
            used = sum(psutil.Process(busy.pid).cpu_times()[:2]) - before
            assert used < 0.3 * (time.monotonic() - began)
        assert busy.poll() is None, "it goes on without a limit"
        assert not quota._folder.exists()
    finally:
        busy.kill()
        busy.wait()
