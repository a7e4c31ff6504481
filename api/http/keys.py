"""The API key that a request carries."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence


def key_of(headers: Mapping[str, str], keys: Sequence[str]) -> str | None:
    """Returns the one of `keys` that was sent, None if none of them was. Takes the same time
    whichever key is right, and however much of it."""
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    sent = [headers.get("X-Api-Key", "")]
    if scheme.lower() == "bearer":
        sent.append(bearer.strip())
    matches = [hmac.compare_digest(digest(key), digest(given)) for key in keys for given in sent]
    return keys[matches.index(True) // len(sent)] if any(matches) else None


def digest(key: str) -> bytes:
    """Returns a hash of a fixed length, since comparing would tell the length of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
