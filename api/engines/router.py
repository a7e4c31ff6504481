"""Delivers each Output to the request that waits for it, and knows what has to be sent to the next
engine. Used on the event loop only."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from api.engines.open_sequence import OpenSequence
from dllama.errors import ClusterError, DllamaError, EngineBusy
from dllama.requests import Output, Submit

BUSY_RETRY_S = 1.0


class OutputRouter:
    """All sequences of one engine that are not finished, the oldest first."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._sequences: dict[str, OpenSequence] = {}  # by the ids of their requests
        self._sent: dict[str, OpenSequence] = {}  # by their ids in the engine
        self._unsent: dict[str, OpenSequence] = {}  # by the ids of their requests
        self._has_tokens = False  # whether the engine that runs now has brought any

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def n_unsent(self) -> int:
        """Sequences that no engine has now."""
        return len(self._unsent)

    def open(self, submit: Submit, now_s: float) -> OpenSequence:
        """A new sequence, which is to be sent; EngineBusy if too many are open already."""
        if submit.id in self._sequences:
            raise ValueError(f"sequence {submit.id} is open already")
        if len(self._sequences) >= self._max_open:
            raise EngineBusy(
                f"{len(self._sequences)} sequences are running or waiting, and the server keeps no "
                "more; ask again in a moment.",
                retry_after_s=BUSY_RETRY_S,
            )
        sequence = self._sequences[submit.id] = OpenSequence(submit, now_s)
        self._unsent[submit.id] = sequence
        return sequence

    def send_unsent(self, send: Callable[[Submit], None], now_s: float) -> None:
        """Sends what no engine has, in order, until `send` raises."""
        for request_id, sequence in list(self._unsent.items()):
            send(sequence.to_submit(now_s))
            sequence.is_sent = True
            self._sent[sequence.engine_id] = sequence
            del self._unsent[request_id]

    def deliver(self, outputs: Iterable[Output]) -> None:
        """One pass over a step's outputs; those of forgotten sequences, and of engines that are
        gone, are dropped."""
        for output in outputs:
            sequence = self._sent.get(output.id)
            if sequence is not None:
                if output.finish is not None:
                    del self._sent[output.id]
                    del self._sequences[sequence.submit.id]
                self._has_tokens |= bool(output.tokens)
                sequence.note(output)

    def close(self, request_id: str) -> str | None:
        """Ends a sequence; returns the id by which the engine has it, None where it has not."""
        sequence = self._forget(request_id)
        if sequence is None:
            return None
        sequence.stream.end()
        return sequence.engine_id if sequence.is_sent else None

    def engine_gone(self, reason: str) -> None:
        """Has all sequences wait for another engine, but for those that may have ended several."""
        brought_tokens, self._has_tokens = self._has_tokens, False
        self._sent.clear()
        self._unsent = dict(self._sequences)
        for request_id, sequence in self._unsent.copy().items():
            error = sequence.engine_gone(reason, brought_tokens=brought_tokens)
            if error is not None:
                self._fail(request_id, error)

    def end_late_ones(self, now_s: float) -> None:
        """Ends sequences whose deadline passes while no engine has them."""
        for request_id, sequence in list(self._unsent.items()):
            if sequence.is_late(now_s):
                self._forget(request_id)
                sequence.end_late(now_s)

    def fail_all(self, reason: str) -> None:
        """Ends every sequence with a ClusterError of its own."""
        for request_id in list(self._sequences):
            self._fail(request_id, ClusterError(reason))

    def fail_unsent(self, reason: str, retry_after_s: float) -> None:
        """Ends those that no engine has with an EngineBusy."""
        for request_id in list(self._unsent):
            self._fail(request_id, EngineBusy(reason, retry_after_s=retry_after_s))

    def _fail(self, request_id: str, error: DllamaError) -> None:
        sequence = self._forget(request_id)
        assert sequence is not None
        sequence.stream.end(error)

    def _forget(self, request_id: str) -> OpenSequence | None:
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._unsent.pop(request_id, None)
            self._sent.pop(sequence.engine_id, None)
        return sequence
