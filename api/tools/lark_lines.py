"""The lines of a Lark grammar that knows control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Marks(NamedTuple):
    """What marks are in a model's vocabulary: `control_id` is the id of a text that is a control
    token, which no text ever makes; `special_id` that of a text that is any special token. None for
    ordinary text. A grammar names them by id: of a text, it would have each letter written where it
    leaves no other choice."""

    control_id: Callable[[str], int | None]
    special_id: Callable[[str], int | None]


ANY = r"/(.|\n)*/"


class LarkLines:
    """The lines of one Lark grammar."""

    def __init__(self, marks: Marks) -> None:
        self.lines: list[str] = [f"ANY: {ANY}"]
        self._marks = marks

    def literal(self, text: str) -> str:
        """Returns the text as Lark has it, or the special token that it is; a special token may
        begin a longer text."""
        if not text:
            return ""
        for end in _mark_ends(text):
            token = self._marks.special_id(text[:end])
            if token is not None:
                return f"<[{token}]> {self.literal(text[end:])}".rstrip()
        return json.dumps(text, ensure_ascii=False)

    def frame(self, text: str) -> str:
        """Returns text that stands around calls as Lark has it, with special tokens wherever they
        are."""
        for begin in (match.start() for match in re.finditer(r"[<\[]", text)):
            for end in _mark_ends(text[begin:]):
                token = self._marks.special_id(text[begin : begin + end])
                if token is not None:
                    parts = (
                        self.literal(text[:begin]), f"<[{token}]>", self.frame(text[begin + end :])
                    )  # fmt: skip
                    return " ".join(part for part in parts if part)
        return self.literal(text)

    def up_to(self, name: str, mark: str, text: str = "ANY") -> None:
        """Adds a rule of any text up to the first mark, and the mark."""
        token = self._marks.control_id(mark)
        if token is not None:
            self.lines.append(f"{name}: {text} <[{token}]>")
        else:
            self.lines.append(f"{name}[lazy]: {text} {json.dumps(mark, ensure_ascii=False)}")


def _mark_ends(text: str) -> Sequence[int]:
    """Returns where a special token that begins `text` may end: after its closing bracket."""
    if not text.startswith(("<", "[")):
        return ()
    return [match.end() for match in re.finditer(r"[>\]]", text)]
