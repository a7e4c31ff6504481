"""The prompt tokens of a step, so few that answers beside them stay fluent. Reads no clock."""

from __future__ import annotations

from collections import deque
from statistics import median

SLOWDOWN = 1.6  # of a step by its prompt tokens: with the spread of both kinds of steps, intervals
# between tokens then hardly double
FIRST_ROWS = 8  # before anything was measured
MIN_ROWS = 1
MEMORY = 9  # an estimate is the median of these many steps: one slow step changes nothing
STALE_AFTER = 48  # mixed steps after which one without prompts is run, to measure it again
UNKNOWN_AFTER = 2  # the same, where nothing was measured yet


class Pace:
    """Limits the prompt tokens of a step beside decoding sequences, so that these stay fluent: by
    running estimates of the duration of a decode step and of a prompt token."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._decode_s: deque[float] = deque(maxlen=MEMORY)
        self._row_s: deque[float] = deque(maxlen=MEMORY)
        self._n_decode = 0  # decoding sequences of the steps in `_decode_s`
        self._n_mixed = 0  # mixed steps since the last of them

    def prefill_rows(self, n_decode: int) -> int:
        """The most prompt tokens of the next step beside `n_decode` decoding sequences; 0 now and
        then, to measure a step without prompts again."""
        if n_decode == 0:
            return self._max_rows
        if self._n_mixed >= (STALE_AFTER if self._decode_s else UNKNOWN_AFTER):
            return 0
        if not self._row_s:
            return min(FIRST_ROWS, self._max_rows)
        room_s, row_s = (SLOWDOWN - 1.0) * median(self._decode_s), median(self._row_s)
        if room_s >= row_s * self._max_rows:
            return self._max_rows
        return max(MIN_ROWS, int(room_s / row_s))

    def note(self, n_prefill: int, n_decode: int, seconds: float) -> None:
        """Records a step's duration."""
        if n_decode and not n_prefill:
            if 2 * n_decode < self._n_decode or n_decode > 2 * self._n_decode:
                self._decode_s.clear()  # measured under another load
                self._n_decode = n_decode
            self._decode_s.append(seconds)
            self._n_mixed = 0
        elif n_decode:
            self._n_mixed += 1
        if n_decode and n_prefill and self._decode_s:
            self._row_s.append(max(seconds - median(self._decode_s), 0.0) / n_prefill)
