"""What a daemon tells a session's process at its start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from dllama.logs.settings import LogFormat


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What the daemon writes to a session's standard input, as one line of JSON."""

    host: str
    port: int  # the daemon's
    threads: int
    epoch: int
    rank: int
    world_size: int
    sync_type: str
    progress_path: str
    report_endpoint: str  # where the daemon hears from its sessions
    root_key: str = ""  # the root's public key; "": all links are plain
    cache_dir: str = ""  # where weights are kept
    cache_bytes: int = 0  # at most; 0: none are
    log_level: str = "info"
    log_format: str = LogFormat.TEXT

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"
