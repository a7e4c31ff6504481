"""When a file is tried again. No I/O: the caller waits."""

from __future__ import annotations


class Patience:
    """Counts tries in a row that brought nothing: one that brought bytes begins anew, so a long
    download over a bad line ends well."""

    def __init__(self, max_tries: int, first_wait_s: float, max_wait_s: float) -> None:
        self._max_tries, self._first_wait_s, self._max_wait_s = max_tries, first_wait_s, max_wait_s
        self.n_vain = 0

    def after_failure(self, n_new_bytes: int, asked_s: float = 0.0) -> float | None:
        """Returns how long to wait before the next try, at least what the server asked for; None
        where there is none."""
        self.n_vain = 1 if n_new_bytes > 0 else self.n_vain + 1
        if self.n_vain >= self._max_tries:
            return None
        wait_s = self._first_wait_s * 2.0 ** (self.n_vain - 1)
        return max(min(wait_s, self._max_wait_s), asked_s)
