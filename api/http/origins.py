"""The web pages that may call this server, by their origins."""

from __future__ import annotations

from urllib.parse import urlsplit

from api.config import ApiConfig

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def is_welcome(origin: str, config: ApiConfig) -> bool:
    if "*" in config.cors_origins or origin in config.cors_origins:
        return True
    return "localhost" in config.cors_origins and is_local(origin)


def is_local(origin: str) -> bool:
    try:
        return urlsplit(origin).hostname in LOCAL_HOSTS
    except ValueError:  # no URL at all
        return False
