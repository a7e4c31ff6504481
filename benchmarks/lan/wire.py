"""When a piece of data arrives that is sent over a bad link, if it arrives at all. No sockets and
no clock: the time and the chance are arguments."""

from __future__ import annotations

from dataclasses import dataclass

MAX_QUEUED_S = 1.0  # what would wait longer at a slow link is dropped, as a router does


@dataclass(frozen=True, slots=True)
class LinkRule:
    """What a link does to what travels one way. The default is a good link."""

    is_cut: bool = False  # nothing arrives
    loss: float = 0.0  # the share of pieces that are lost
    delay_s: float = 0.0
    jitter_s: float = 0.0  # added to the delay, at most
    bytes_per_s: float = 0.0  # 0: no limit


class Wire:
    """One way of a link. Pieces arrive in the order they were sent in."""

    def __init__(self, rule: LinkRule | None = None) -> None:
        self.rule = rule or LinkRule()
        self._free_at_s = 0.0  # when a slow link has sent what it was given
        self._last_due_s = 0.0

    def due_s(self, now_s: float, n_bytes: int, chance: float, wobble: float) -> float | None:
        """Returns when a piece of n_bytes arrives; None where it is lost. `chance` and `wobble`
        are random numbers from 0 to 1."""
        rule = self.rule
        if rule.is_cut or chance < rule.loss:
            return None
        leaves_s = now_s
        if rule.bytes_per_s:
            leaves_s = max(now_s, self._free_at_s)
            if leaves_s - now_s > MAX_QUEUED_S:
                return None
            leaves_s += n_bytes / rule.bytes_per_s
            self._free_at_s = leaves_s
        due_s = max(self._last_due_s, leaves_s + rule.delay_s + wobble * rule.jitter_s)
        self._last_due_s = due_s
        return due_s
