"""A text as parts of one token each, for answers that tell the probabilities of tokens."""

from __future__ import annotations

from collections.abc import Iterator

from api.answers.events import Probs, Text


def parts_by_token(index: int, text: str, told: Probs, begin: int) -> Iterator[Text]:
    """Yields a part for each token of a text, which begins at the character `begin` of the answer;
    tokens that only begin a character go with the one that completes it."""
    first = done = 0
    for i in range(len(told)):
        end = told[i + 1].offset - begin if i + 1 < len(told) else len(text)
        if end > done:
            probs = told[first : i + 1]
            yield Text(index, text[done:end], [one.probs.token for one in probs], probs)
            first, done = i + 1, end
    if done < len(text):
        yield Text(index, text[done:], (), told[first:])
