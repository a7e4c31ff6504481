"""The settings of a worker daemon."""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.security.settings import Security
from cluster.sockets import DEFAULT_PORT
from cluster.wire.features import own_features
from cluster.worker.launcher import SESSION_COMMAND
from cluster.worker.slots import DEFAULT_SESSIONS
from dllama import __version__
from dllama.logs.settings import LogSettings


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of a daemon. The last three are for tests to change."""

    threads: int
    host: str = "0.0.0.0"
    port: int = DEFAULT_PORT
    security: Security = field(default_factory=Security)
    cache_dir: str = ""  # where weights are kept
    cache_bytes: int = 0  # at most; 0: none are
    max_sessions: int = DEFAULT_SESSIONS
    logs: LogSettings = field(default_factory=lambda: LogSettings("info"))
    release: str = __version__
    features: tuple[str, ...] = field(default_factory=own_features)
    session_command: tuple[str, ...] = SESSION_COMMAND
