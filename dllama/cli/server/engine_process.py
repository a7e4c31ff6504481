"""Starts an engine's process, tells it what to serve, and ends it.

The process imports while it waits for a line with its instructions on stdin, and ends when its
stdin does. Its pulse (dllama/cli/server/pulse.py) comes on stdout.
"""

from __future__ import annotations

import json
import logging
import subprocess
from contextlib import suppress
from dataclasses import asdict

from dllama.host.child_python import child_command, child_environment
from dllama.logs.settings import LogSettings

log = logging.getLogger(__name__)


def start_engine() -> subprocess.Popen[bytes]:
    """Starts a process that waits for its instructions. Raises OSError."""
    command = child_command("dllama.cli.server.engine")
    return subprocess.Popen(
        command, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def instruct(
    process: subprocess.Popen[bytes], endpoint: str, settings: str, logs: LogSettings
) -> None:
    """Tells a started process what to serve: `settings` are EngineSettings as JSON."""
    assert process.stdin is not None, "start_engine opens a pipe"
    line = json.dumps({"endpoint": endpoint, "settings": settings, "log": asdict(logs)})
    with suppress(OSError):  # it has ended, which is noticed elsewhere
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Closes the pipes to a process, which ends it where it works still."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def end_gently(process: subprocess.Popen[bytes], wait_s: float) -> None:
    """Closes the pipes to a process, and kills it if it has not ended after `wait_s`."""
    let_go(process)
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        log.warning("the engine did not end by itself and is killed")
        process.kill()
        process.wait()


def end_engine(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that nobody else has ended."""
    let_go(process)
    if process.poll() is None:
        process.kill()
    process.wait()
