"""The order in which groups of rows take turns, and when each enters its next half layer: the same
for all ranks, and for the planner, which runs it through with times in place of work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol


class Group(Protocol):
    """Rows on their way through the layers, which have entered their first half layer."""

    def enter(self) -> None:
        """Waits for the sums of the half layer before, and sends what the next one reads."""
        ...

    def compute(self, between: Callable[[], None]) -> bool:
        """Computes the half layer that it has entered, with `between` between its two parts if it
        has two; returns whether there was one."""
        ...


def take_turns(groups: Sequence[Group], n_half_layers: int, *, has_parts: bool) -> None:
    """Computes so many half layers of all groups, and what follows the last one.

    A group enters its next half layer where its sums have had time to travel and its normed rows
    will have time: between the two parts of another group's half layer, or where none has two
    parts, after the next group has computed.
    """
    computed: list[Group] = []  # and not entered again
    n_ahead = len(groups) if has_parts else min(1, len(groups) - 1)

    def enter(n_left: int) -> None:
        while len(computed) > n_left:
            computed.pop(0).enter()

    for number in in_order(len(groups), n_half_layers + 1, has_parts=has_parts):
        group = groups[number]
        if group in computed:
            computed.remove(group)
            group.enter()
        if group.compute(lambda: enter(0)):
            computed.append(group)
            enter(n_ahead)


def in_order(n_groups: int, n_visits: int, *, has_parts: bool) -> Iterator[int]:
    """Yields the groups in the order in which they are computed, each `n_visits` times. Attention
    is mostly shorter than what travels after it: where half layers have two parts, the last of
    three groups is a half layer behind, so that a feed-forward is computed between any two
    attentions."""
    if n_groups != 3 or not has_parts:
        for _ in range(n_visits):
            yield from range(n_groups)
        return
    yield from (0, 1)
    for _ in range(n_visits - 1):
        yield from (0, 2, 1)
    yield 2
