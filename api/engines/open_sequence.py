"""A sequence that has not ended: the Outputs for its reader, and what another engine needs to go on
with it. Used on the event loop only."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from dllama.errors import ClusterError, DllamaError, EngineBusy
from dllama.requests import FinishReason, Output, Resume, Submit

FAILURES = (FinishReason.ERROR, FinishReason.ABORT)  # an answer that ends so is incomplete
MAX_DEATHS = 3  # of engines in a row that brought no token at all and had this sequence
INNOCENCE = 4  # an engine that brought tokens of others counts as 1 / INNOCENCE of such a one
LEAST_S = 1e-3  # of a deadline that has passed: the engine ends the sequence at once
LATE_RETRY_S = 5.0


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


class OpenSequence:
    """One request, and how far the engines that it was sent to have brought it."""

    def __init__(self, submit: Submit, now_s: float) -> None:
        self.submit = submit
        self.stream = OutputStream()
        self.is_sent = False  # to the engine that runs now
        self._submitted_s = now_s
        self._n_engines = 0  # that are gone
        self._n_deaths = 0  # among them, since the last token
        self._blame = 0  # for these, in parts of 1 / INNOCENCE
        self._tokens: list[int] = []  # of the answer so far
        self._last: Output | None = None

    @property
    def engine_id(self) -> str:
        """Its id in the engine: another one for each engine, so that no late word of one that is
        gone is taken for one of the next."""
        return f"{self.submit.id}+{self._n_engines}" if self._n_engines else self.submit.id

    def note(self, output: Output) -> None:
        """Takes an Output to its reader, and notes what another engine would need."""
        if output.tokens:
            self._tokens += output.tokens
            self._n_deaths = self._blame = 0
        self._last = output
        self.stream.push(output)

    def to_submit(self, now_s: float) -> Submit:
        """The request for the engine that runs now: as it came, or to be gone on with."""
        if not self._n_engines:
            return self.submit
        deadline_s = self.submit.deadline_s
        if deadline_s is not None:
            deadline_s = max(LEAST_S, self._ends_at_s - now_s)
        resume, last = Resume(), self._last
        if last is not None:
            resume = Resume(list(self._tokens), last.n_cached, last.mu, last.n_replaced)
        return replace(self.submit, id=self.engine_id, deadline_s=deadline_s, resume=resume)

    def engine_gone(self, reason: str, *, brought_tokens: bool) -> ClusterError | None:
        """Records the end of an engine, which `brought_tokens` of some sequences or of none.
        Returns the error that ends this sequence too, if several engines in a row have ended while
        they had it, without a token of it: it may be the cause."""
        self._n_engines += 1
        if self.is_sent:
            self._n_deaths += 1
            # What ends engines mostly does so at once: who has tokens is rather beside it.
            self._blame += 1 if brought_tokens or self._tokens else INNOCENCE
        self.is_sent = False
        if self._blame < MAX_DEATHS * INNOCENCE:
            return None
        return ClusterError(
            f"{reason} That happened {self._n_deaths} times in a row while this request ran, so "
            "that it is not tried again; it may be its cause: change it, and see the server's log."
        )

    def is_late(self, now_s: float) -> bool:
        return now_s >= self._ends_at_s

    def end_late(self, now_s: float) -> None:
        """Ends it at its deadline while no engine has it, as an engine would."""
        if self._last is not None and self._tokens:
            self.stream.push(replace(self._last, tokens=[], probs=None, finish=FinishReason.LENGTH))
            return
        self.stream.end(
            EngineBusy(
                f"The request's time ran out after {now_s - self._submitted_s:.1f} s, before the "
                "first token: the engine is being started again; send it again later or give it "
                "more time.",
                retry_after_s=LATE_RETRY_S,
            )
        )

    @property
    def _ends_at_s(self) -> float:
        deadline_s = self.submit.deadline_s
        return math.inf if deadline_s is None else self._submitted_s + deadline_s


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
    return replace(
        last,
        tokens=[token for output in outputs for token in output.tokens],
        n_prompt=max(output.n_prompt for output in outputs),
        n_cached=max(output.n_cached for output in outputs),
        probs=[probs for output in outputs for probs in output.probs or ()] or None,
        n_computed=max(output.n_computed for output in outputs),
        n_drafted=sum(output.n_drafted for output in outputs),
        n_accepted=sum(output.n_accepted for output in outputs),
    )
