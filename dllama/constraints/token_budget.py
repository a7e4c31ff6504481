"""Keeps the answer of one sequence to texts that can be completed within its last tokens.

A completion is looked for now and then while many tokens are left, and for every token once they
run short: a token after which the text could not be completed is replaced by the first one of a
completion.
"""

from __future__ import annotations

from llguidance import LLMatcher

from dllama.constraints.completions import LONGEST, CompletionFinder

FIRST_LOOK = LONGEST  # tokens left at the first search for a completion
MARGIN = 128  # every token is checked from this many spare tokens on, and the first completion's:
# a member of an object may have many that it requires in turn
GROWTH = 8  # tokens by which one token may lengthen the completion, as assumed between searches
MAX_REPLACED = 64  # replaced tokens, after which the known completion is written unchecked


class TokenBudget:
    """The token budget of one sequence. `n_left` always counts from the matcher's position."""

    def __init__(self, completions: CompletionFinder) -> None:
        self._completions = completions
        self._completion: list[int] | None = None  # of the text so far, once tokens run short
        self._margin: int | None = None
        self._look_at = FIRST_LOOK
        self.n_replaced = 0

    def look(self, matcher: LLMatcher, n_left: int) -> None:
        """Searches for a completion, if one is due."""
        if self._completion is not None or n_left > self._look_at:
            return
        completion = self._completions.find(matcher, n_left)
        if completion is None:  # perhaps what is open now ends by itself
            self._look_at = n_left - 1 - n_left // GROWTH
            return
        if self._margin is None:
            self._margin = MARGIN + len(completion)
        spare = n_left - len(completion) - self._margin
        if spare <= 0:
            self._completion = completion
        else:
            self._look_at = n_left - 1 - spare // GROWTH

    def keep(self, matcher: LLMatcher, token: int, n_left: int) -> int:
        """Returns the token, which the grammar allows as the next of `n_left`, or its replacement
        if the text could not be completed after it."""
        completion = self._completion
        if completion is None:
            return token
        if completion and (len(completion) >= n_left or self.n_replaced == MAX_REPLACED):
            self._completion = completion[1:]
            return completion[0]
        after = matcher.deep_copy()
        if not after.consume_token(token):
            return token
        found = self._find_after(after, n_left - 1)
        if found is None and completion:
            self.n_replaced += 1
            self._completion = completion[1:]
            return completion[0]
        self._completion = found
        if found is None:
            self._look_at = 0  # a text that might have ended here begins what cannot end
        return token

    def _find_after(self, matcher: LLMatcher, n_left: int) -> list[int] | None:
        """Returns a completion after one more token: mostly the known one, or the rest of it."""
        assert self._completion is not None, "asked where tokens run short"
        for known in (self._completion[1:], self._completion[2:], self._completion):
            if len(known) <= n_left and _completes(matcher.deep_copy(), known):
                return known
        return self._completions.find(matcher, n_left)


def _completes(matcher: LLMatcher, completion: list[int]) -> bool:
    n_good = matcher.try_consume_tokens(completion) if completion else 0
    return n_good == len(completion) and matcher.is_accepting()
