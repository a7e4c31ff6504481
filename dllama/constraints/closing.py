"""Keeps the answer of one sequence where it can still be completed in the tokens that are left.

How many its end takes is looked up now and then while there are plenty left, and for every token
once they run short: one that begins what cannot be ended any more gives way to one that leads out.
"""

from __future__ import annotations

from llguidance import LLMatcher

from dllama.constraints.ways_out import LONGEST, WaysOut

FIRST_LOOK = LONGEST  # tokens left; with more nothing is looked for
MARGIN = 32  # tokens to spare, and as many as the first way has, from which every token is checked
GROWTH = 8  # tokens that one token is thought to lengthen the way by, at a time when no one looks
MAX_REPLACED = 64  # tokens, behind which the known way is followed without another look


class Closing:
    """Of one sequence; the tokens left are counted from the place of the matcher that is given."""

    def __init__(self, ways: WaysOut) -> None:
        self._ways = ways
        self._way: list[int] | None = None  # from where the answer is, if tokens run short
        self._margin: int | None = None
        self._look_at = FIRST_LOOK
        self._n_replaced = 0

    def look(self, matcher: LLMatcher, n_left: int) -> None:
        """Finds out, if it is time to, how far it is to the end."""
        if self._way is not None or n_left > self._look_at:
            return
        way = self._ways.find(matcher, n_left)
        if way is None:  # no way in so many tokens; perhaps what is open now ends by itself
            self._look_at = n_left - 1 - n_left // GROWTH
            return
        if self._margin is None:
            self._margin = MARGIN + len(way)
        spare = n_left - len(way) - self._margin
        if spare <= 0:
            self._way = way
        else:
            self._look_at = n_left - 1 - spare // GROWTH

    def keep(self, matcher: LLMatcher, token: int, n_left: int) -> int:
        """The token, which the grammar allows and of `n_left` is the next; or another one if the
        answer could not be completed behind it."""
        way = self._way
        if way is None:
            return token
        if way and (len(way) >= n_left or self._n_replaced == MAX_REPLACED):
            self._way = way[1:]
            return way[0]
        behind = matcher.deep_copy()
        if not behind.consume_token(token):
            return token
        found = self._way_behind(behind, n_left - 1)
        if found is None and way:
            self._n_replaced += 1
            self._way = way[1:]
            return way[0]
        self._way = found
        if found is None:
            self._look_at = 0  # a text that might have ended here begins what cannot end
        return token

    def _way_behind(self, matcher: LLMatcher, n_left: int) -> list[int] | None:
        """Mostly the known way, or what is left of it, still leads out."""
        assert self._way is not None, "asked where tokens run short"
        for known in (self._way[1:], self._way[2:], self._way):
            if len(known) <= n_left and _leads_out(matcher.deep_copy(), known):
                return known
        return self._ways.find(matcher, n_left)


def _leads_out(matcher: LLMatcher, way: list[int]) -> bool:
    n_good = matcher.try_consume_tokens(way) if way else 0
    return n_good == len(way) and matcher.is_accepting()
