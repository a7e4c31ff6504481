"""An engine without a model: it answers every prompt with a given list of token ids, one a step,
and keeps the promises of dllama.engine.engine.Engine. Driven by one thread, watched by others."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat

from dllama.engine.outputs import EngineInterrupted
from dllama.errors import ClusterError
from dllama.requests import (
    FinishReason,
    Output,
    SessionCall,
    SessionReply,
    Submit,
    TokenProbs,
)

FILLER_ID = 65  # after the end of a script that has no stop id: "A" for ever


@dataclass
class Running:
    submit: Submit
    script: Iterator[int]
    n_done: int = 0
    n_read: int = 0  # tokens of its prompt, where it tells of them: two a step


@dataclass
class ScriptedEngine:
    """`answer` is what it says to a prompt; `step_s` makes it slow; `steps` limits how many steps
    it takes before the test allows more, so that tests need no clock."""

    answer: Callable[[Submit], list[int]]
    max_len: int = 256
    step_s: float = 0.0002  # an engine that takes no time would only flood its reader
    n_cached: int = 0
    max_running: int = 1000
    gate: threading.Semaphore | None = None
    submitted: list[Submit] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    n_steps: int = 0
    fails_with: Exception | None = None
    loses_node: bool = False
    n_recover_failures: int = 0
    is_closed: bool = False
    _is_lost: bool = False
    _refused: list[Output] = field(default_factory=list)

    def submit(self, submit: Submit) -> None:
        self.submitted.append(submit)
        if len(self.running) >= self.max_running:
            no_room = Output(
                submit.id, [], FinishReason.ERROR, "the queue is full", retry_after_s=7.0
            )
            self._refused.append(no_room)
            return
        script = chain(self.answer(submit), repeat(FILLER_ID))
        self.running[submit.id] = Running(submit, script)

    def abort(self, request_id: str) -> None:
        if self.running.pop(request_id, None) is not None:
            self.aborted.append(request_id)

    def has_work(self) -> bool:
        return bool(self._refused or self.running)

    def step(self) -> list[Output]:
        if self._is_lost:
            return self._take_refused()
        if self.gate is not None and not self.gate.acquire(timeout=0.01):
            return []
        if self.step_s:
            time.sleep(self.step_s)
        if self.fails_with is not None:
            raise self.fails_with
        if self.loses_node:
            raise self._interrupted()
        self.n_steps += 1
        outputs = self._take_refused()
        outputs += [self._advance(running) for running in list(self.running.values())]
        return outputs

    def _take_refused(self) -> list[Output]:
        refused, self._refused = self._refused, []
        return refused

    def _advance(self, running: Running) -> Output:
        submit, token = running.submit, next(running.script)
        n_prompt = len(submit.tokens)
        if submit.pooling is not None:
            del self.running[submit.id]
            vector = struct.pack("<4f", n_prompt, submit.tokens[0], submit.tokens[-1], 1)
            return Output(submit.id, [], FinishReason.STOP, n_prompt=n_prompt, embedding=vector)
        if submit.wants_progress and running.n_read < n_prompt:
            running.n_read = min(n_prompt, running.n_read + 2)
            if running.n_read < n_prompt:
                running.script = chain([token], running.script)
                return Output(submit.id, [], n_prompt=n_prompt, n_computed=running.n_read)
        if token in submit.stop_ids:
            del self.running[submit.id]
            return Output(
                submit.id, [], FinishReason.STOP, n_prompt=n_prompt, n_cached=self.n_cached
            )
        running.n_done += 1
        finish = None
        if running.n_done == submit.max_tokens or n_prompt + running.n_done == self.max_len:
            del self.running[submit.id]
            finish = FinishReason.LENGTH
        probs = None
        if submit.sampling.n_probs is not None:  # it is rather sure of its script
            tops = [token, FILLER_ID][: submit.sampling.n_probs]
            probs = [TokenProbs(token, -0.5, tops, [-0.5, -1.5][: len(tops)])]
        return Output(
            submit.id, [token], finish, n_prompt=n_prompt, n_cached=self.n_cached, probs=probs
        )

    def _interrupted(self) -> EngineInterrupted:
        outputs = [Output(name, [], FinishReason.ERROR, "node 1 is lost") for name in self.running]
        self.running.clear()
        self._is_lost = True
        return EngineInterrupted("node 1 is lost", outputs=outputs)

    def idle(self) -> None:
        if self.loses_node and not self._is_lost:
            raise self._interrupted()

    def recover(self) -> None:
        if self.n_recover_failures > 0:
            self.n_recover_failures -= 1
            raise ClusterError("node 1 is still away")
        self.loses_node = self._is_lost = False

    def close(self) -> None:
        self.is_closed = True

    def session(self, call: SessionCall) -> SessionReply:
        """Knows the sessions that requests have named."""
        lengths = {s.session_id: len(s.tokens) for s in self.submitted if s.session_id is not None}
        if call.session_id not in lengths:
            return SessionReply(call.id, error=f"there is no session {call.session_id!r}")
        return SessionReply(call.id, n_tokens=lengths[call.session_id], n_bytes=100)

    def stats(self) -> dict[str, object]:
        return {
            "world_size": 1,
            "sequences": {"waiting": 0, "running": len(self.running)},
            "workers": [{"rank": 0}],
        }
