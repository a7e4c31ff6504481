"""Which addresses are asked and followed, and who is sent the token. No I/O."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from dllama.errors import HubError

MAX_HOPS = 8
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int]:
    """Returns scheme, host and port of a URL. Raises HubError for what is none."""
    parts = _split(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def check_address(url: str, endpoint: str) -> None:
    """Raises HubError for a URL that is neither https nor of the hub's own host."""
    parts = _split(url)
    if parts.scheme != "https" and parts.hostname != _split(endpoint).hostname:
        raise HubError(
            f"{without_query(url)} is not asked: only https is followed, or the host of the hub "
            f"({_split(endpoint).hostname})."
        )


def headers_for(url: str, endpoint: str, token: str | None) -> dict[str, str]:
    """Returns the headers of a request: the token is for the hub itself, and for nobody else."""
    is_hub = token is not None and origin_of(url) == origin_of(endpoint)
    return {"Authorization": f"Bearer {token}"} if is_hub else {}


def next_hop(url: str, location: str | None, endpoint: str) -> str:
    """Returns the address that a redirect leads to. Raises HubError where it is not followed."""
    if not location:
        raise HubError(f"{without_query(url)} redirects to nowhere; try again later.")
    try:
        target = urljoin(url, location)
    except ValueError:
        raise HubError(f"{without_query(url)} redirects to what is no address.") from None
    check_address(target, endpoint)
    return target


def without_query(url: str) -> str:
    """Returns a URL as it may be shown: what follows its path may be a signature."""
    parts = urlsplit(url)
    return parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in _PORTS and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_url = False
    if not is_url:
        raise HubError(f"{url[:100]!r} is no address of the web.")
    return parts
