"""Shows the progress of training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SMOOTH = 0.97  # of the running loss
PLAIN_S = 30.0  # between two lines where there is no terminal


class TrainingLine:
    """Loss, tokens per second and the time that is left."""

    def __init__(self, console: Console, n_steps: int, first_step: int) -> None:
        self._console, self._n_steps, self._first_step = console, n_steps, first_step
        self._started_s = self._told_s = time.monotonic()
        self._n_tokens = 0
        self.loss = 0.0
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.description}"), TimeElapsedColumn(), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=n_steps, completed=first_step)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, loss: float, n_tokens: int) -> None:
        """Records that `step` steps are done, and the loss and the tokens of the last."""
        n_seen = step - self._first_step
        weight = min(SMOOTH, 1 - 1 / n_seen)
        self.loss = weight * self.loss + (1 - weight) * loss
        self._n_tokens += n_tokens
        now_s = time.monotonic()
        seconds = now_s - self._started_s
        left_s = seconds / n_seen * (self._n_steps - step)
        text = (
            f"loss {self.loss:.3f}, {self._n_tokens / seconds:.0f} tokens/s, "
            f"{left_s / 60:.0f} min left"
        )
        self._bar.update(self._task, completed=step, description=text)
        if not self._console.is_terminal and now_s - self._told_s > PLAIN_S:
            self._told_s = now_s
            self.note(f"step {step} of {self._n_steps}: {text}")

    def note(self, text: str) -> None:
        self._console.print(text)
