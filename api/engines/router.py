"""Delivers each Output to the request that waits for it. Used on the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dllama.errors import ClusterError, DllamaError, EngineBusy
from dllama.requests import FinishReason, Output

BUSY_RETRY_S = 1.0
FAILURES = (FinishReason.ERROR, FinishReason.ABORT)  # an answer that ends so is incomplete


class OutputStream:
    """The Outputs of one sequence, as an async iterator that merges unread ones.

    Unread outputs are bounded by the sequence's own max_tokens and context.
    """

    def __init__(self) -> None:
        self._ready: list[Output] = []
        self._error: DllamaError | None = None
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def push(self, output: Output) -> None:
        self._ready.append(output)
        self._ended = output.finish is not None
        self._wake()

    def end(self, error: DllamaError | None = None) -> None:
        """Ends the stream; `error` is raised once the unread Outputs are read."""
        self._ended, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> OutputStream:
        return self

    async def __anext__(self) -> Output:
        # Outputs stay in the list until the reader runs, so a cancelled wait loses none.
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        ready, self._ready = self._ready, []
        if ready[-1].finish in FAILURES:  # raised once the tokens before it are read
            if len(ready) == 1:
                raise failure(ready[0])
            self._ready.append(ready.pop())
        return merged(ready)


def failure(output: Output) -> DllamaError:
    """The error that the last Output of a failed sequence stands for."""
    reason = output.error or "The engine has dropped this request; send it again."
    if output.retry_after_s is not None:
        return EngineBusy(reason, retry_after_s=output.retry_after_s)
    return ClusterError(reason)


def merged(outputs: list[Output]) -> Output:
    """Merges several Outputs of a sequence into one."""
    if len(outputs) == 1:
        return outputs[0]
    last = outputs[-1]
    return Output(
        id=last.id,
        tokens=[token for output in outputs for token in output.tokens],
        finish=last.finish,
        error=last.error,
        n_prompt=max(output.n_prompt for output in outputs),
        n_cached=max(output.n_cached for output in outputs),
        retry_after_s=last.retry_after_s,
        probs=[probs for output in outputs for probs in output.probs or ()] or None,
        n_computed=max(output.n_computed for output in outputs),
        embedding=last.embedding,
        n_drafted=sum(output.n_drafted for output in outputs),
        n_accepted=sum(output.n_accepted for output in outputs),
    )


class OutputRouter:
    """All sequences of one engine that are not finished, by id."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._streams: dict[str, OutputStream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, request_id: str) -> OutputStream:
        """A stream for a new sequence; EngineBusy if too many are open already."""
        if request_id in self._streams:
            raise ValueError(f"sequence {request_id} is open already")
        if len(self._streams) >= self._max_open:
            raise EngineBusy(
                f"{len(self._streams)} sequences are running or waiting, and the server keeps no "
                "more; ask again in a moment.",
                retry_after_s=BUSY_RETRY_S,
            )
        stream = self._streams[request_id] = OutputStream()
        return stream

    def deliver(self, outputs: Iterable[Output]) -> None:
        """One pass over a step's outputs; those of forgotten sequences are dropped."""
        for output in outputs:
            stream = self._streams.get(output.id)
            if stream is not None:
                if output.finish is not None:
                    del self._streams[output.id]
                stream.push(output)

    def close(self, request_id: str) -> bool:
        """Forgets a sequence; False if it was not open."""
        stream = self._streams.pop(request_id, None)
        if stream is not None:
            stream.end()
        return stream is not None

    def fail_all(self, reason: str) -> None:
        """Ends every sequence with a ClusterError of its own."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.end(ClusterError(reason))
