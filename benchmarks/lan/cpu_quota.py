"""A limit of processor time for some processes, by a control group of either version."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 10_000  # short beside a token: no step runs by chance within one period alone
NO_QUOTA = {"cpu.max": "max", "cpu.cfs_quota_us": "-1"}


def why_no_quota(root: Path = ROOT) -> str | None:
    """Returns why no limit can be set here; None if it can."""
    folder = _controller(root)
    if folder is None:
        return "processor time cannot be limited here: no cgroup has the cpu controller"
    return None if os.access(folder, os.W_OK) else f"processor time is limited in {folder} by root"


class CpuQuota:
    """A group whose processes get `cores` of processor time together; `limit` changes it later.
    When it is closed they run without a limit."""

    def __init__(self, cores: float, root: Path = ROOT) -> None:
        top = _controller(root)
        assert top is not None, "why_no_quota() comes first"
        self._top, self._folder = top, top / f"dllama-{os.getpid()}-{id(self):x}"
        self._cores = cores

    def __enter__(self) -> Self:
        self._folder.mkdir()
        self.limit(self._cores)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._move(int(pid) for pid in (self._folder / "cgroup.procs").read_text().split())
        self._folder.rmdir()

    def limit(self, cores: float | None) -> None:
        """Sets the limit of all processes together; None takes it off."""
        for name, without in NO_QUOTA.items():
            file = self._folder / name
            if not file.exists():
                continue
            if cores is None:
                file.write_text(without)
            elif name == "cpu.max":
                file.write_text(f"{int(cores * PERIOD_US)} {PERIOD_US}")
            else:
                (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                file.write_text(str(int(cores * PERIOD_US)))

    def hold(self, pid: int) -> None:
        """Puts a process into the group, with all that it has started; what these start follows."""
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            (self._folder / "cgroup.procs").write_text(str(each.pid))

    def _move(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with suppress(OSError):  # it has ended meanwhile
                (self._top / "cgroup.procs").write_text(str(pid))


def _controller(root: Path) -> Path | None:
    """Returns the folder of the cpu controller: version 1's, or version 2's where it is enabled for
    groups below the root."""
    if (root / "cpu" / "cpu.cfs_quota_us").exists():
        return root / "cpu"
    try:
        enabled = (root / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    return root if "cpu" in enabled else None
