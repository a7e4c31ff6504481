"""The error by which an engine says that it has lost a node."""

from __future__ import annotations

from dllama.errors import ClusterError
from dllama.requests import Output


class EngineInterrupted(ClusterError):
    """A node was lost: every sequence has ended, as `outputs` says, and the engine takes no new
    ones until `Engine.recover` works."""

    def __init__(self, message: str, *, outputs: list[Output]) -> None:
        super().__init__(message)
        self.outputs = outputs
