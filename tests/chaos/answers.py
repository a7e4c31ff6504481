"""What a client was told, put into one form that two runs can be compared by.

An answer comes in as many pieces as the server likes: texts are joined, lists are joined, and what
is said again and again counts once. Names and times that are new with every answer are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

VOLATILE = frozenset(
    [
        "id",
        "item_id",
        "response_id",
        "call_id",
        "created",
        "created_at",
        "completed_at",
        "timings",
        "system_fingerprint",
        "cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "input_tokens",
        "sequence_number",
        "total_duration",
        "load_duration",
        "prompt_eval_duration",
        "eval_duration",
        "tokens_cached",
        "tokens_evaluated",
        "id_slot",
        "generation_settings",
        "prompt_progress",
        "obfuscation",
    ]
)
TEXTS = frozenset(
    [
        "content",
        "text",
        "delta",
        "reasoning_content",
        "arguments",
        "partial_json",
        "thinking",
        "response",
    ]
)
LISTS = frozenset(
    [
        "tokens",
        "token_logprobs",
        "top_logprobs",
        "text_offset",
        "completion_probabilities",
        "embedding",
    ]
)
COUNTS = frozenset(["tokens_predicted", "output_tokens", "completion_tokens", "eval_count"])
"""Figures that grow: the last one counts."""

Leaf = str | int | float | bool | None


class Answer:
    """The sum of all pieces of one answer."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._lists: dict[str, list[object]] = {}
        self._said: dict[str, list[Leaf]] = {}

    def add(self, piece: object) -> None:
        """Adds one event's body."""
        if isinstance(piece, dict) and piece.get("type") == "ping":
            return
        self._walk("", "", piece)

    def told(self) -> dict[str, object]:
        """Returns everything that was told, by its place."""
        return {**self._texts, **self._lists, **self._said}

    def differences(self, other: Answer) -> list[str]:
        """Returns one sentence for each place where the other answer says something else."""
        mine, theirs = self.told(), other.told()
        return [
            f"{place}: {theirs.get(place)!r} instead of {mine.get(place)!r}"
            for place in sorted({*mine, *theirs})
            if mine.get(place) != theirs.get(place)
        ]

    def _walk(self, place: str, name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in VOLATILE:
                    self._walk(f"{place}.{key}", key, inner)
        elif isinstance(value, list) and (name in LISTS or place.endswith("logprobs.content")):
            self._lists.setdefault(place, []).extend(map(_still, value))
        elif isinstance(value, list):
            for at, inner in enumerate(value):
                at = inner.get("index", at) if isinstance(inner, dict) else at
                self._walk(f"{place}[{at}]", name, inner)
        elif isinstance(value, str) and name in TEXTS:
            self._texts[place] = self._texts.get(place, "") + value
        elif value is None or isinstance(value, str | int | float):
            self._note(place, name, value)
        else:
            raise TypeError(f"{place} is a {type(value).__name__}, which JSON does not have")

    def _note(self, place: str, name: str, value: Leaf) -> None:
        said = self._said.setdefault(f"{place}!", [])
        if name in COUNTS:
            said[:] = [value]
        elif (not said or said[-1] != value) and not (value is None and name in TEXTS):
            said.append(value)


def _still(value: object) -> object:
    """Returns a value without what is new with every answer."""
    if isinstance(value, dict):
        return {key: _still(inner) for key, inner in value.items() if key not in VOLATILE}
    return list(map(_still, value)) if isinstance(value, list) else value


def errors_in(piece: object) -> Iterator[str]:
    """Yields what an event says went wrong."""
    if isinstance(piece, dict):
        error = piece.get("error")
        if error:
            yield str(error)
        if piece.get("type") in ("error", "response.failed"):
            yield str(piece)
