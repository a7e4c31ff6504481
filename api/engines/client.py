"""The protocol between the server and its engines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from dllama.errors import EngineBusy
from dllama.nodes import NodesCall, NodesReply
from dllama.requests import EngineState, Output, SessionCall, SessionReply, Submit

LOADING_RETRY_S = 2.0
RECOVERING_RETRY_S = 2.0
FAILED_RETRY_S = 30.0


class Restarts(NamedTuple):
    """How often another engine has taken over, and the seconds until it did."""

    total: int = 0
    seconds: float = 0.0


class EngineClient(Protocol):
    """One engine, in another process or in a thread. All methods are called on the event loop."""

    @property
    def state(self) -> EngineState:
        """The latest known state; does not wait."""
        ...

    @property
    def n_open(self) -> int:
        """Sequences that have not ended."""
        ...

    def submit(self, submit: Submit) -> AsyncIterator[Output]:
        """Starts a sequence; iterate to get its Outputs up to and including the one with `finish`.

        A slow reader gets several Outputs merged into one; an Output never waits in any queue but
        its own sequence's. Raises EngineBusy at once while the engine takes no requests or has no
        room; the iterator raises ClusterError when the engine is lost for good or drops the
        sequence, and EngineBusy when the engine itself finds no room. Where another engine is
        started, the sequence waits for it and goes on there with the very next token.
        """
        ...

    def abort(self, request_id: str) -> None:
        """Frees a sequence at once; its iterator ends. Unknown and finished ids are ignored."""
        ...

    async def stats(self) -> dict[str, object]:
        """The engine's part of GET /stats; raises ClusterError if the engine cannot say."""
        ...

    async def session(self, call: SessionCall) -> SessionReply:
        """Saves, restores or erases a session; raises ClusterError if the engine cannot say, and
        EngineBusy while it is not ready. What went wrong with the session is in the reply."""
        ...

    async def nodes(self, call: NodesCall) -> NodesReply:
        """Lists the nodes, or adds or removes one; also while a lost one is waited for. Raises
        ClusterError if the engine cannot say, and EngineBusy where it reads nothing now. What is
        wrong with the call is in the reply."""
        ...

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Ends every sequence with ClusterError, then closes threads and sockets."""
        ...

    def engine_died(self, reason: str, *, is_restarting: bool = False) -> None:
        """Called by the supervisor when the engine is gone. If another one is started the state
        becomes "loading", and sequences wait for it; else "failed", and all end with
        ClusterError."""
        ...

    @property
    def restarts(self) -> Restarts:
        """The engines that have taken over from one that was gone."""
        ...


def refuse_unless_taken(state: EngineState) -> None:
    """Raises EngineBusy unless requests are taken, be it to wait until the engine is back."""
    if not state.queues:
        refuse_unless_ready(state)


def refuse_unless_ready(state: EngineState) -> None:
    """Raises EngineBusy, saying why and when to come back, in every state but "ready"."""
    detail = f": {state.detail}" if state.detail else ""
    if state.state == "ready":
        return
    if state.state == "loading":
        raise EngineBusy(
            f"The model is still loading ({state.progress:.0%}{detail}); ask again in a moment.",
            retry_after_s=LOADING_RETRY_S,
        )
    if state.state == "recovering":
        raise EngineBusy(
            f"The cluster has lost a node and is recovering{detail}; ask again in a moment.",
            retry_after_s=RECOVERING_RETRY_S,
        )
    if state.state == "sleeping":
        raise EngineBusy(
            f"The model sleeps, as nobody asked it anything{detail}; ask again in a moment.",
            retry_after_s=LOADING_RETRY_S,
        )
    raise EngineBusy(
        f"The engine of this model has failed{detail}; see the server's log and restart it.",
        retry_after_s=FAILED_RETRY_S,
    )
