"""The lines of a Lark grammar that knows control tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

ControlId = Callable[[str], int | None]
"""The id of a text that is a control token of the model, None for ordinary text: a grammar names
such tokens by id, because no text ever makes them."""

ANY = r"/(.|\n)*/"


class LarkLines:
    """The lines of one Lark grammar."""

    def __init__(self, control_id: ControlId) -> None:
        self.lines: list[str] = [f"ANY: {ANY}"]
        self._control_id = control_id

    def literal(self, text: str) -> str:
        """Returns the text as Lark has it, or the control token that it is; a control token may
        begin a longer text."""
        if not text:
            return ""
        for end in _mark_ends(text):
            token = self._control_id(text[:end])
            if token is not None:
                return f"<[{token}]> {self.literal(text[end:])}".rstrip()
        return json.dumps(text, ensure_ascii=False)

    def frame(self, text: str) -> str:
        """Returns text that stands around calls as Lark has it, with control tokens wherever they
        are."""
        for begin in (match.start() for match in re.finditer(r"[<\[]", text)):
            for end in _mark_ends(text[begin:]):
                token = self._control_id(text[begin : begin + end])
                if token is not None:
                    parts = (
                        self.literal(text[:begin]), f"<[{token}]>", self.frame(text[begin + end :])
                    )  # fmt: skip
                    return " ".join(part for part in parts if part)
        return self.literal(text)

    def up_to(self, name: str, mark: str, text: str = "ANY") -> None:
        """Adds a rule of any text up to the first mark, and the mark."""
        token = self._control_id(mark)
        if token is not None:
            self.lines.append(f"{name}: {text} <[{token}]>")
        else:
            self.lines.append(f"{name}[lazy]: {text} {json.dumps(mark, ensure_ascii=False)}")


def _mark_ends(text: str) -> Sequence[int]:
    """Returns where a control token that begins `text` may end: after its closing bracket."""
    if not text.startswith(("<", "[")):
        return ()
    return [match.end() for match in re.finditer(r"[>\]]", text)]
