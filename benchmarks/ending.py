"""Ends the processes of a benchmark: none of them is left behind, whatever it does."""

from __future__ import annotations

import subprocess
from typing import Any


def wait_or_kill(process: subprocess.Popen[Any], within_s: float) -> None:
    """Waits for a process that was told to end, and kills it where that is not in time."""
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
