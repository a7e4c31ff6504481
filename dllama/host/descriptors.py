"""File descriptors, of which a process may have only so many: each connection takes one."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from dllama.errors import ConfigError

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What the system answers where there are no descriptors, or no memory for one."""


def raise_limit() -> None:
    """Raises this process's limit as far as it may: many systems begin at 1,024, or at 256."""
    if resource is None:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says "no limit" and takes less
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def limit() -> int | None:
    """Returns how many descriptors this process may have; None without a limit."""
    if resource is None:
        return None
    now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if now == resource.RLIM_INFINITY else now


def n_free() -> int | None:
    """Returns how many more may be opened; None where nobody knows."""
    most, listed = limit(), Path("/proc/self/fd")
    if most is None or not listed.exists():
        return None
    try:
        return most - len(os.listdir(listed)) + 1  # noqa: PTH208  names; one is the listing's own
    except OSError as error:
        return 0 if error.errno in EXHAUSTED else None


def check_free(n_needed: int, what: str) -> None:
    """Raises ConfigError where fewer than `n_needed` may be opened: libraries below us would end
    the process without a word."""
    free = n_free()
    if free is not None and free < n_needed:
        raise ConfigError(
            f"{what} needs {n_needed} file descriptors and may open only {free} more; raise the "
            "limit (ulimit -n)"
        )
