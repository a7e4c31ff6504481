"""Many streams at once, each of which knows what it has to be told."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.answers import Answer
from tests.chaos.cases import CASES, Case
from tests.chaos.clients import Clients, Lost

AT_ONCE = 4  # questions while the undisturbed answers are made
LAST_ANSWERS_S = 240.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not happen. `is_lost`: no whole answer came; else it came differently."""

    at_s: float
    case: str
    is_lost: bool
    detail: str


def undisturbed(socket: Path, cases: tuple[Case, ...] = CASES) -> dict[str, Answer]:
    """Returns the answers of a cluster that nobody hurts. Raises Lost."""

    async def ask_all() -> dict[str, Answer]:
        room = asyncio.Semaphore(AT_ONCE)

        async def ask(clients: Clients, case: Case) -> Answer:
            async with room:
                return await clients.ask(case)

        async with Clients(socket) as clients:
            found = await asyncio.gather(*(ask(clients, case) for case in cases))
        return {case.name: answer for case, answer in zip(cases, found, strict=True)}

    return asyncio.run(ask_all())


class Load:
    """Streams that ask one question after another, in a thread of their own; used as a context,
    at whose end every stream has its last answer."""

    def __init__(self, socket: Path, n_streams: int, expected: dict[str, Answer]) -> None:
        self._socket, self._n_streams, self._expected = socket, n_streams, expected
        self._cases = [case for case in CASES if case.name in expected]
        self.findings: list[Finding] = []
        self.n_answers: Counter[str] = Counter()
        self._waiting_since_s: dict[int, float] = {}  # streams, and when each last heard anything
        self._pieces_s: deque[float] = deque(maxlen=100_000)  # when pieces of answers came
        self._is_over = False
        self._thread = threading.Thread(target=self._run_thread, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def first_piece_after(self, moment_s: float) -> float | None:
        """Returns when the first piece of any answer came after a moment."""
        return next((at_s for at_s in tuple(self._pieces_s) if at_s > moment_s), None)

    def has_served_all_since(self, moment_s: float) -> bool:
        """True if every stream has heard something since then, and so computes again. One that
        waits for a whole answer hears nothing before its end."""
        return all(at_s > moment_s for at_s in tuple(self._waiting_since_s.values()))

    def _run_thread(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self._find("the load itself", f"{type(error).__name__}: {error}", is_lost=True)
            raise

    async def _run(self) -> None:
        async with Clients(self._socket) as clients:
            streams = [
                asyncio.create_task(self._stream(clients, k)) for k in range(self._n_streams)
            ]
            while not self._is_over:
                await asyncio.sleep(0.05)
            _, late = await asyncio.wait(streams, timeout=LAST_ANSWERS_S)
            for stream in late:
                self._find("a stream", f"no end within {LAST_ANSWERS_S:g} s", is_lost=True)
                stream.cancel()

    async def _stream(self, clients: Clients, number: int) -> None:
        at = number
        while not self._is_over:
            case = self._cases[at % len(self._cases)]
            at += 1 + number % 3  # streams do not ask in step
            if case.client != "whole":
                self._waiting_since_s[number] = time.monotonic()
            try:
                answer = await clients.ask(case, lambda: self._hear(number))
            except Lost as lost:
                self._find(case.name, str(lost), is_lost=True)
                await asyncio.sleep(0.5)  # a server that refuses is not asked in a tight loop
                continue
            finally:
                self._waiting_since_s.pop(number, None)
            self.n_answers[case.name] += 1
            found = self._expected[case.name].differences(answer)
            if found:
                self._find(case.name, "; ".join(found)[:2000], is_lost=False)

    def _hear(self, number: int) -> None:
        now_s = time.monotonic()
        self._pieces_s.append(now_s)
        if number in self._waiting_since_s:
            self._waiting_since_s[number] = now_s

    def _find(self, case: str, detail: str, *, is_lost: bool) -> None:
        self.findings.append(Finding(time.monotonic(), case, is_lost, detail))
