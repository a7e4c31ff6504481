"""Free memory, and the limits of the container (a cgroup, man 7 cgroups) that this process runs in.

Both versions of cgroups are read; without a limit, or on other systems than Linux, a limit is None.
"""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # version 1 spells "no limit" as a number near 2^63


def total_memory() -> int:
    """Returns the bytes of memory that this machine has."""
    import psutil  # here: who only asks for the cores need not wait for it

    return int(psutil.virtual_memory().total)


def machine_memory() -> int:
    """Returns the bytes that can be allocated on this machine without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def available_memory() -> int:
    """Returns those of them that are within a container's limit."""
    free, left = machine_memory(), memory_left()
    return free if left is None else min(free, left)


def memory_left(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Returns the bytes the container may still take. Cached files count as free, since they can be
    dropped."""
    left = []
    for folder in _folders(root, own, "memory"):
        limit = _memory_limit(folder)
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            left.append(max(0, limit - used + _cached(folder / "memory.stat")))
    return min(left, default=None)


def memory_group(root: Path = _ROOT, own: Path = _OWN) -> int | None:
    """Returns a number that processes have in common which share a container's limit of memory, of
    several the outermost, and others of this machine have not; None without a limit."""
    limited = [f for f in _folders(root, own, "memory") if _memory_limit(f) is not None]
    return limited[-1].stat().st_ino if limited else None


def _memory_limit(folder: Path) -> int | None:
    limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
    return limit if limit is not None and limit < _UNLIMITED else None


def cpu_limit(root: Path = _ROOT, own: Path = _OWN) -> float | None:
    """Returns the processor time that the container may use, in cores."""
    limits = []
    for folder in _folders(root, own, "cpu"):
        words = _text(folder / "cpu.max").split()
        quota = int(words[0]) if words and words[0].isdigit() else None
        period = int(words[1]) if len(words) > 1 and words[1].isdigit() else None
        if quota is None:
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
        if quota and period:
            limits.append(quota / period)
    return min(limits, default=None)


def is_throttled(n_threads: int, root: Path = _ROOT, own: Path = _OWN) -> bool:
    """Returns whether this process may be paused where so many threads and the system's own work
    for it are busy all the time: its container has less processor time."""
    limit = cpu_limit(root, own)
    return limit is not None and limit < n_threads + 1


def n_cores() -> int:
    """Returns the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _folders(root: Path, own: Path, controller: str) -> list[Path]:
    """Returns the folders of the controller's files: those of this process's group and of the
    groups above it."""
    found: list[Path] = []
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        inner = top / path.strip("/")
        found += [p for p in (inner, *inner.parents) if p == top or top in p.parents]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _cached(stat: Path) -> int:
    for line in _text(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("file", "total_cache") and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
