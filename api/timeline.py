"""When the parts of a request begin and end: its turn, a load, its prompt, its answer. Knows no
clock: all times are seconds of time.monotonic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from aiohttp import web

from api.meter import Measured
from dllama.requests import FinishReason


class TimedSequence(Measured, Protocol):
    """A sequence as it is told here. `waited_s` is how long the engine had it wait."""

    waited_s: float
    finish: FinishReason | None


class Phase(NamedTuple):
    """A part of a request: "queue", "load", "prompt" or "decode"."""

    name: str
    began_s: float
    ended_s: float


class Timeline:
    """The phases of one request, as far as it has come."""

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.model = ""  # that answers it
        self._before: list[Phase] = []  # the prompt
        self._sequences: list[TimedSequence] = []

    def note_model(
        self, name: str, asked_s: float, got_s: float, load: tuple[float, float] | None
    ) -> None:
        """Records how long a model was waited for, of which `load`, if it is known, was its load
        and the rest a turn in the queue. Of several models the first counts."""
        if self._before:
            return
        self.model = name
        began_s, ended_s = load or (asked_s, got_s)
        began_s = min(max(asked_s, began_s), got_s)
        ended_s = min(max(began_s, ended_s), got_s)
        if began_s > asked_s:
            self._before.append(Phase("queue", asked_s, began_s))
        self._before.append(Phase("load", began_s, ended_s))
        if got_s > ended_s:
            self._before.append(Phase("queue", ended_s, got_s))

    def note_sequences(self, sequences: Iterable[TimedSequence]) -> None:
        """Records the sequences that answer the request; their times are read later."""
        self._sequences += sequences

    def phases(self) -> list[Phase]:
        """Returns the phases that have ended, in order."""
        begun = [one for one in self._sequences if one.first_at is not None]
        if not begun:
            return list(self._before)
        first = min(begun, key=lambda one: one.first_at or 0.0)
        first_s = first.first_at or 0.0
        computed_s = min(first.submitted_at + first.waited_s, first_s)
        found = [
            *self._before,
            Phase("queue", first.submitted_at, computed_s),
            Phase("prompt", computed_s, first_s),
        ]
        if all(one.finish is not None for one in self._sequences):
            found.append(Phase("decode", first_s, max(one.last_at for one in begun)))
        return found

    def milliseconds(self) -> dict[str, float]:
        """Returns how long each phase took, those of one name together."""
        sums: dict[str, float] = {}
        for name, began_s, ended_s in self.phases():
            sums[name] = sums.get(name, 0.0) + 1e3 * (ended_s - began_s)
        return {name: round(sums[name], 1) for name in ORDER if name in sums}

    def server_timing(self) -> str:
        """Returns the value of the header Server-Timing; "" where there is nothing to tell."""
        told = self.milliseconds()
        return ", ".join(f"{name};dur={duration:.1f}" for name, duration in told.items())

    def n_tokens(self) -> tuple[int, int]:
        """Returns the tokens of prompts and of answers."""
        prompts = sum(one.n_prompt for one in self._sequences)
        return prompts, sum(one.n_completion for one in self._sequences)


ORDER = ("queue", "load", "prompt", "decode")
TIMELINE = web.RequestKey("TIMELINE", Timeline)
