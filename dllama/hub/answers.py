"""What an HTTP answer means for a file of which a part is here already. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dllama.errors import HubError, NotOnHub

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_LATER = (408, 409, 425, 429, 500, 502, 503, 504)
MAX_VERSION = 256  # characters
MAX_LATER_S = 300.0  # however long a server asks to wait


class Passing(Exception):
    """Raised for trouble that may be over at the next try; `after_s` is when the server asks for
    it."""

    def __init__(self, reason: str, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class WrongContent(HubError):
    """What came is not what the hub's metadata says: nothing of it may be kept."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rest of a file: from `start` on, of `n_bytes` in all. `version` is what the server called
    the content whose beginning is here."""

    what: str
    start: int
    n_bytes: int
    version: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that ask for it; compressed bytes would be others than the digest is of."""
        asked = {"Accept-Encoding": "identity"}
        if self.start:
            asked["Range"] = f"bytes={self.start}-"
            if self.version:  # else the whole comes, and not the rest of another content
                asked["If-Range"] = self.version
        return asked


def version_of(headers: Mapping[str, str]) -> str:
    """Returns what a server calls the content that it sends: its strong ETag, or the time of its
    last change (RFC 9110, 8.8); "" where it says neither."""
    tag = headers.get("ETag", "").strip()
    is_strong = len(tag) > 2 and tag[0] == tag[-1] == '"'
    found = tag if is_strong else headers.get("Last-Modified", "").strip()
    return found if len(found) <= MAX_VERSION and found.isascii() and found.isprintable() else ""


def begins_at(wanted: Wanted, status: int, headers: Mapping[str, str]) -> int:
    """Returns the byte of the file that the body begins with: `wanted.start`, or 0 where the server
    sends the whole. Raises Passing, WrongContent or HubError."""
    if status not in (200, 206):
        raise refusal(wanted.what, status, headers)
    if headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise WrongContent(f"{wanted.what} comes compressed, though it was asked for as it is.")
    length = _number(headers.get("Content-Length"))
    if status == 200:
        if length is not None and length != wanted.n_bytes:
            raise WrongContent(_other_size(wanted, length))
        return 0
    found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if found is None:
        raise Passing(f"{wanted.what}: the server sends a part without saying which")
    start, end = int(found[1]), int(found[2])
    if found[3] != "*" and int(found[3]) != wanted.n_bytes:
        raise WrongContent(_other_size(wanted, int(found[3])))
    if start != wanted.start or end >= wanted.n_bytes or end < start:
        raise WrongContent(
            f"{wanted.what}: the server sends bytes {start} to {end}, and was asked for those from "
            f"{wanted.start} on."
        )
    return start


def refusal(what: str, status: int, headers: Mapping[str, str]) -> Exception:
    """Returns what an answer without the file means: Passing, NotOnHub or HubError."""
    code = headers.get("X-Error-Code", "")
    if status in _LATER:
        return Passing(f"{what}: the server answers {status}", _after(headers.get("Retry-After")))
    if status == 416:
        return WrongContent(f"{what} is shorter at the server than what is here of it.")
    if code == "GatedRepo" or status == 403:
        return NotOnHub(
            f"{what}: its owner lets nobody in who has not agreed to the model's terms. Agree on "
            "its page at the hub, and set HF_TOKEN to your token."
        )
    if status in (401, 404, 410):
        return NotOnHub(
            f"{what} is not there, or is private ({status}). Check the name; for a private or "
            "gated model set HF_TOKEN to your token."
        )
    return HubError(f"{what}: the server answers {status}, which was not expected.")


def _after(value: str | None) -> float:
    """Returns the seconds that a Retry-After asks for; dates are not read."""
    number = _number(value)
    return 0.0 if number is None else min(float(number), MAX_LATER_S)


def _number(value: str | None) -> int | None:
    text = (value or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _other_size(wanted: Wanted, found: int) -> str:
    return (
        f"{wanted.what} has {found} bytes at the server, where the hub's metadata says "
        f"{wanted.n_bytes}; something between here and the hub answers in its place, or the file "
        "has changed. Pull the model again."
    )
