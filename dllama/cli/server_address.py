"""A server that a command talks to, by the URL that the user gave. Standard library only."""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from dllama.cli.trust import Trust, untrusted
from dllama.errors import ClusterError, ConfigError, DllamaError

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_ANSWER_BYTES = 64 << 20


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which server a command talks to."""
    parser.add_argument("--url", default=DEFAULT_URL, help="the server")
    parser.add_argument(
        "--api-key", metavar="KEY", type=first_key,
        help="the server's key, if it asks for one",
    )  # fmt: skip
    parser.add_argument(
        "--ca-file", metavar="FILE", type=Path,
        help="believe https servers with a certificate of this PEM file, or signed by one of it, "
        "and no others",
    )  # fmt: skip


def address_of(args: argparse.Namespace) -> ServerAddress:
    """Returns the server that the flags name. Raises ConfigError for what is no address."""
    return ServerAddress(args.url, args.api_key, Trust(args.ca_file))


def first_key(text: str) -> str:
    """An argparse type: a key; of several, as a server's user may have them, the first."""
    return text.replace(" ", ",").partition(",")[0]


class ServerAddress:
    """Where a server listens, the key that it asks for, and which certificate it may show."""

    def __init__(self, url: str, api_key: str | None, trust: Trust | None = None) -> None:
        """Raises ConfigError for what is no address."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            self._port = parts.port
        except ValueError:  # a bracket or a port that is none
            is_address = False
        if not is_address:
            raise ConfigError(f"{url!r} is no address of a server; write {DEFAULT_URL}")
        self._parts = parts
        self._trust = trust or Trust()
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def __str__(self) -> str:
        return self._parts.geturl()

    @contextmanager
    def request(
        self, method: str, path: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Sends a request and yields the response, while its body is read too. Raises ClusterError
        where the server cannot be reached, or is none; Untrusted for its certificate."""
        connection = self._connection(timeout_s)
        try:
            prefix = self._parts.path.rstrip("/").removesuffix("/v1")
            data = None if body is None else json.dumps(body)
            connection.request(method, f"{prefix}{path}", data, self._headers)
            yield connection.getresponse()
        except (http.client.HTTPException, ConnectionResetError) as error:
            is_cut = isinstance(error, ConnectionResetError | http.client.IncompleteRead)
            raise ClusterError(
                f"what answers at {self} is no server of dllama: "
                f"{'it hangs up, unless it ended just now' if is_cut else 'it speaks no HTTP'}; "
                "name the port of dllama-root with --url, not that of a dllama-worker"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise untrusted(str(self), error, self._trust) from error
        except ssl.SSLError as error:
            raise ClusterError(
                f"what answers at {self} speaks no TLS ({error.reason}); write http:// where the "
                "server has no certificate"
            ) from error
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"the server at {self} cannot be reached: {error}; start it with dllama-root, or "
                "name another with --url"
            ) from error
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host = self._parts.hostname or ""
        if self._parts.scheme == "https":
            return self._trust.connection(host, self._port, timeout_s)
        return http.client.HTTPConnection(host, self._port, timeout=timeout_s)

    def ask(
        self, method: str, path: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> dict[str, object]:
        """Returns the JSON object that the server answers with. Raises DllamaError with the
        server's words where it refuses."""
        return self.ask_with_headers(method, path, body, timeout_s)[0]

    def ask_with_headers(
        self, method: str, path: str, body: Mapping[str, object] | None, timeout_s: float
    ) -> tuple[dict[str, object], Mapping[str, str]]:
        """Returns what `ask` does, and the answer's headers. Raises as ask."""
        with self.request(method, path, body, timeout_s) as response:
            data = response.read(MAX_ANSWER_BYTES)
            status, headers = response.status, response.headers
        if status != 200:
            raise DllamaError(refusal(data, status))
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise DllamaError(
                f"what answers at {self} is no server of dllama: it sends no JSON object; name "
                "another with --url"
            )
        return answer, dict(headers.items())


def refusal(body: bytes, status: int) -> str:
    """Returns the server's words of an answer that is an error."""
    try:
        error = json.loads(body)["error"]
        return error if isinstance(error, str) else str(error["message"])  # Ollama's, OpenAI's
    except (ValueError, KeyError, TypeError):
        line = " ".join(body[:200].decode("utf-8", "replace").split())
        return f"the server answered {status}: {''.join(c for c in line if c.isprintable())}"
