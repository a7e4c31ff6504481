"""The nonce by which a root shows that it hears this daemon's answers. The clock is an argument."""

from __future__ import annotations

import hashlib
import hmac

VALID_S = 600.0  # from a hello to the session: a root reads its model and plans in between


class Challenge:
    """Issues nonces that hold for one host, without remembering any: a keyed hash of the host and
    the time, as SYN cookies are made."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, address: str, now: float) -> str:
        """Returns the nonce for a host."""
        return self._nonce(address, int(now / VALID_S))

    def accepts(self, address: str, nonce: str, now: float) -> bool:
        """Returns whether a nonce was issued to that host within the last VALID_S seconds or so."""
        period = int(now / VALID_S)
        issued = (self._nonce(address, period - ago) for ago in (0, 1))
        return any(hmac.compare_digest(nonce.encode(), each.encode()) for each in issued)

    def _nonce(self, address: str, period: int) -> str:
        said = f"{period} {address}".encode()
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()[:32]
