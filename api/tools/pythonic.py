"""Values of Python's literals as JSON. Llama 4 writes a call as Python does,
`get_weather(city="Paris", days=3)`; its arguments are to be JSON. Knows characters, no calls.

Source: the format of tool calls that Meta describes for Llama 3.2 and 4."""

from __future__ import annotations

import json
import re

from api.tools.strict_json import strict_json

MAX_DEPTH = 64  # of lists within lists

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NAMES = {
    "True": "true", "False": "false", "None": "null", "true": "true", "false": "false",
    "null": "null",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z]+")
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "\n": ""}
_CODES = {"x": 2, "u": 4, "U": 8}  # hexadecimal digits after a backslash and this letter
_OPEN, _CLOSE = "([{", ")]}"


def json_of(text: str) -> str:
    """Returns a value as JSON, numbers digit by digit; what is no literal is a text."""
    text = text.strip()
    try:
        strict_json(text)
    except (ValueError, RecursionError):
        pass
    else:
        return text
    try:
        return _Literal(text).whole()
    except ValueError:
        return json.dumps(text, ensure_ascii=False)


class ValueEnd:
    """Finds where a value among a call's arguments ends, in text that comes in pieces: at the comma
    or the bracket after it."""

    def __init__(self) -> None:
        self._depth = 0
        self._quote = ""
        self._is_escaped = False

    def find(self, text: str, begin: int) -> int | None:
        """Returns the place in `text` of the character that ends the value; None where none from
        `begin` on does. Each call goes on where the last one ended."""
        for i in range(begin, len(text)):
            char = text[i]
            if self._is_escaped:
                self._is_escaped = False
            elif self._quote:
                self._is_escaped = char == "\\"
                if char == self._quote:
                    self._quote = ""
            elif char in "\"'":
                self._quote = char
            elif self._depth == 0 and char in ",)":
                return i
            elif char in _OPEN:
                self._depth += 1
            elif char in _CLOSE:
                self._depth -= 1
        return None


class _Literal:
    """Parses one literal. Raises ValueError for anything else."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def whole(self) -> str:
        """Returns the JSON of the whole text."""
        found = self._value(0)
        self._skip()
        if self._at < len(self._text):
            raise ValueError("There is something after the value.")
        return found

    def _skip(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _takes(self, char: str) -> bool:
        """True if this character comes next, after white space; it is then read."""
        self._skip()
        is_next = self._peek() == char
        self._at += is_next
        return is_next

    def _value(self, depth: int) -> str:
        self._skip()
        char = self._peek()
        if depth > MAX_DEPTH:
            raise ValueError("The value is nested too deeply.")
        if char and char in "\"'":
            return json.dumps(self._string(), ensure_ascii=False)
        if self._takes("["):
            return f"[{', '.join(self._items(']', depth))}]"
        if self._takes("("):
            return f"[{', '.join(self._items(')', depth))}]"
        if self._takes("{"):
            return f"{{{', '.join(self._items('}', depth, has_keys=True))}}}"
        for pattern, table in ((_NUMBER, None), (_NAME, _NAMES)):
            match = pattern.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                found = match.group() if table is None else table.get(match.group())
                if found is not None:
                    return found
                break
        raise ValueError("No literal begins here.")

    def _items(self, end: str, depth: int, *, has_keys: bool = False) -> list[str]:
        """Returns what stands up to the bracket `end`, which is read too."""
        items: list[str] = []
        while not self._takes(end):
            if items and not self._takes(","):
                raise ValueError("A comma is missing.")
            if items and self._takes(end):
                break
            item = self._value(depth + 1)
            if has_keys:
                if not item.startswith('"') or not self._takes(":"):
                    raise ValueError("Keys are texts, before a colon.")
                item = f"{item}: {self._value(depth + 1)}"
            items.append(item)
        return items

    def _string(self) -> str:
        """Returns a string's characters. Two escapes that make one character are joined, as in
        JSON."""
        quote = self._peek()
        self._at += 1
        chars: list[str] = []
        while (char := self._peek()) != quote:
            if not char:
                raise ValueError("A text does not end.")
            self._at += 1
            chars.append(self._escaped() if char == "\\" else char)
        self._at += 1
        text = "".join(chars)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _escaped(self) -> str:
        """Returns what an escape stands for; one that Python does not know stands for itself."""
        char = self._peek()
        self._at += 1
        n = _CODES.get(char)
        if n is None:
            known = char if char and char in "\\\"'" else _PLAIN.get(char)
            return f"\\{char}" if known is None else known
        digits = self._text[self._at : self._at + n]
        self._at += n
        code = int(digits, 16) if re.fullmatch(rf"[0-9A-Fa-f]{{{n}}}", digits) else -1
        if not 0 <= code <= 0x10FFFF:
            raise ValueError("An escape is no character.")
        return chr(code)
