"""The flags about HTTP: where to listen, who may ask, how to stop."""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dllama.cli.flags.arguments import comma_list, port_number
from dllama.cli.flags.defaults import request_defaults
from dllama.cli.flags.durations import idle_seconds, ping_seconds, seconds
from dllama.cli.flags.logs import add_log_flags
from dllama.cli.flags.settings import (
    DEFAULT_DRAIN_S,
    DEFAULT_MAX_BODY_MB,
    DEFAULT_PING_S,
    DEFAULT_TIMEOUT_S,
    ServerSettings,
)
from dllama.errors import ConfigError

LLAMA_KEYS_VARIABLE = "LLAMA_API_KEY"  # llama-server's
MAX_KEY_FILE_BYTES = 1 << 20
GROUP = "server"


def megabytes(text: str) -> int:
    """An argparse type: a size of 1 MB or more."""
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of MB from 1 to 1024")
    return int(text)


def add_server_flags(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group(GROUP)
    add_served_model_flags(parser)
    server.add_argument(
        "--host", metavar="HOST,...", default=("127.0.0.1",), type=hosts,
        help="addresses to listen on (127.0.0.1); 0.0.0.0 for all, unix:PATH or PATH.sock for a "
        "unix socket",
    )  # fmt: skip
    server.add_argument(
        "--port", type=port_number, default=8080, help="port to listen on; 0 picks one"
    )
    server.add_argument(
        "--api-key", metavar="KEY,...", type=comma_list, action="append", default=[],
        help="keys of which requests must carry one, as a bearer token or in X-Api-Key; may be "
        "repeated",
    )  # fmt: skip
    server.add_argument(
        "--api-key-file", metavar="FILE", type=Path, help="more keys, one a line; # is a comment"
    )
    server.add_argument(
        "--ssl-cert-file", metavar="FILE", type=Path,
        help="serve https with this PEM certificate (chain)",
    )  # fmt: skip
    server.add_argument(
        "--ssl-key-file", metavar="FILE", type=Path, help="the PEM key of --ssl-cert-file"
    )
    server.add_argument(
        "--drain-timeout", metavar="S", type=seconds, default=DEFAULT_DRAIN_S,
        help="seconds that answers may go on after SIGTERM; /health is 503 meanwhile",
    )  # fmt: skip
    server.add_argument(
        "--max-body", metavar="MB", type=megabytes, default=DEFAULT_MAX_BODY_MB,
        help="the largest request that is read",
    )  # fmt: skip
    server.add_argument(
        "--strict-fields", action="store_true",
        help="refuse requests with fields or tools that the answer cannot follow; without it they "
        "are left out, and the header X-Dllama-Ignored names them",
    )  # fmt: skip
    server.add_argument(
        "--api-prefix", metavar="PATH", type=api_prefix, default="",
        help="a path before every route, such as /llm",
    )  # fmt: skip
    add_route_flags(server)
    server.add_argument(
        "--cors-origins", metavar="ORIGIN,...", type=comma_list, default=("*",),
        help="web pages that may call the API: *, localhost, or origins",
    )  # fmt: skip
    server.add_argument(
        "-v", "--verbose", "--log-verbose", action="store_true",
        help="tell everything on stderr, and in `__verbose` of each answer",
    )  # fmt: skip
    add_log_flags(server, "warning")


def add_served_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that each model of a server may have for itself."""
    served = parser.add_argument_group("the model that is served")
    served.add_argument(
        "--sleep-idle-seconds", metavar="N", type=idle_seconds, default="-1",
        help="free the weights, on workers too, after N seconds without a request; the next one "
        "loads them again and waits for it; -1 never",
    )  # fmt: skip
    served.add_argument(
        "-a", "--alias", metavar="NAME,...", type=comma_list, default=(),
        help="names that requests may call the model by; the first is its id",
    )  # fmt: skip
    served.add_argument(
        "--tags", metavar="TAG,...", type=comma_list, default=(),
        help="words about the model, told in /v1/models",
    )  # fmt: skip


def add_route_flags(server: argparse._ActionsContainer) -> None:
    """Adds the flags that turn routes on and off, and those about their streams."""
    server.add_argument("--slots", action=argparse.BooleanOptionalAction, default=True,
                        help="GET /slots tells what each slot does")  # fmt: skip
    server.add_argument("--props", action="store_true",
                        help="POST /props is taken, though nothing can be set")  # fmt: skip
    server.add_argument("--ui", "--webui", action=argparse.BooleanOptionalAction, default=True,
                        help="GET / shows a page to browsers")  # fmt: skip
    server.add_argument(
        "-to", "--timeout", metavar="S", type=seconds, default=DEFAULT_TIMEOUT_S,
        help="seconds that a reader or a sender may stand still",
    )  # fmt: skip
    server.add_argument(
        "--sse-ping-interval", metavar="S", type=ping_seconds, default=DEFAULT_PING_S,
        help="seconds between comments in a silent stream, -1: none",
    )  # fmt: skip


def hosts(text: str) -> tuple[str, ...]:
    """An argparse type: addresses and sockets between commas."""
    found = tuple(dict.fromkeys(comma_list(text)))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names no address")
    return found


def api_prefix(text: str) -> str:
    """An argparse type: a path without a slash at its end."""
    path = text.rstrip("/")
    if path and (not path.startswith("/") or any(c in path for c in "{}?#")):
        raise argparse.ArgumentTypeError(f"{text!r} is no path such as /llm")
    return path


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """Returns the settings of the HTTP server. Raises ConfigError where the key file cannot be
    used."""
    return ServerSettings(
        hosts=args.host,
        port=args.port,
        api_keys=all_keys(args.api_key, args.api_key_file),
        cors_origins=args.cors_origins,
        aliases=args.alias,
        tags=args.tags,
        api_prefix=args.api_prefix,
        shows_slots=args.slots,
        takes_props=args.props,
        has_page=args.ui,
        timeout_s=args.timeout,
        ping_s=args.sse_ping_interval,
        is_verbose=args.verbose,
        defaults=request_defaults(args),
        tokenizer=args.tokenizer,
        chat_template=args.chat_template_file or args.chat_template,
        ssl_cert_file=args.ssl_cert_file,
        ssl_key_file=args.ssl_key_file,
        drain_s=args.drain_timeout,
        max_body_mb=args.max_body,
        strict_fields=args.strict_fields,
        sleep_idle_s=args.sleep_idle_seconds,
    )


def all_keys(flags: Iterable[tuple[str, ...]], file: Path | None) -> tuple[str, ...]:
    """Returns the keys of the flags and the file; without any, those of llama-server's variable."""
    keys = [key for group in flags for key in group]
    if file is not None:
        keys += keys_of_file(file)
    if not keys:
        keys = list(comma_list(os.environ.get(LLAMA_KEYS_VARIABLE, "")))
    return tuple(dict.fromkeys(keys))


def keys_of_file(path: Path) -> list[str]:
    """Returns the keys in a file, of which there must be one: a server must not be open by
    mistake."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"The API keys of {path} cannot be read: it is no file.")
            data = file.read(MAX_KEY_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The API keys of {path} cannot be read: {error}.") from error
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or len(data) > MAX_KEY_FILE_BYTES:
        raise ConfigError(
            f"The API key file {path} holds no key, or more than {MAX_KEY_FILE_BYTES} bytes; write "
            "one key on each line."
        )
    return keys
