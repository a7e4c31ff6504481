"""How many prompt tokens a step may take beside running answers, so that these stay fluent.

Is told what steps took, never asks a clock. It changes when prompts are computed, never what.
"""

from __future__ import annotations

from collections import deque
from statistics import median

SLOWDOWN = 1.6  # what a step with prompt tokens takes, as a multiple of one without: with the
# spread of both, the answers' intervals then hardly double
FIRST_ROWS = 8  # before anything was measured
MIN_ROWS = 1
MEMORY = 9  # steps that an estimate is the median of: one slow step changes nothing
STALE_AFTER = 48  # mixed steps before one without prompts is run, to measure it again
UNKNOWN_AFTER = 2  # the same, where nothing was measured yet


class Pace:
    """Running estimates of a decode step's seconds and of a prompt token's."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._decode_s: deque[float] = deque(maxlen=MEMORY)
        self._row_s: deque[float] = deque(maxlen=MEMORY)
        self._n_decode = 0  # sequences in the steps that `_decode_s` measured
        self._n_mixed = 0  # steps since

    def prefill_rows(self, n_decode: int) -> int:
        """The prompt tokens that the next step may take beside `n_decode` running answers; 0 now
        and then, for a step that tells anew what the answers alone take."""
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
        """A step has taken so long."""
        if n_decode and not n_prefill:
            if 2 * n_decode < self._n_decode or n_decode > 2 * self._n_decode:
                self._decode_s.clear()  # another load: what was measured tells little of it
                self._n_decode = n_decode
            self._decode_s.append(seconds)
            self._n_mixed = 0
        elif n_decode:
            self._n_mixed += 1
        if n_decode and n_prefill and self._decode_s:
            self._row_s.append(max(seconds - median(self._decode_s), 0.0) / n_prefill)
