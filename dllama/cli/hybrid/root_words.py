"""The server of a hybrid: what its flags mean for the chat, and the words that start it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.root import build_parser, checked_root, resolved_root
from dllama.cli.flags.server import all_keys
from dllama.cli.server_address import ServerAddress
from dllama.cli.trust import OnlyThis
from dllama.errors import ConfigError

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class RootWords:
    """`words` start the server; `model` is the one that was named, "" for many; `names` are what a
    server calls it. `has_own_port`: somebody chose the port."""

    words: tuple[str, ...]
    host: str
    port: int
    prefix: str
    cert_file: Path | None
    api_key: str | None
    model: str
    names: frozenset[str]
    has_own_port: bool
    splits_threads: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' * (self.cert_file is not None)}://{host}:{self.port}{self.prefix}"

    def address(self) -> ServerAddress:
        """Returns the server for the chat, which believes its certificate and no other. Raises
        ConfigError where that cannot be read."""
        trust = None if self.cert_file is None else OnlyThis(self.cert_file)
        return ServerAddress(self.url, self.api_key, trust)


def read_root_words(words: Sequence[str], *, has_default_model: bool, n_workers: int) -> RootWords:
    """Returns the server that the words, the environment and the user's file ask for. A model that
    is named is downloaded where it is not here. Without one it is the small one of the package, or
    any. Raises ConfigError; argparse ends the process for words that it cannot read."""
    parser = build_parser()
    parser.prog = "dllama"
    flags = checked_root(resolved_root(parser, words))
    args, found = flags.args, flags.found
    more = _model_words(args, has_list=flags.router is not None, has_default=has_default_model)
    if n_workers and "shares" not in found:
        more += ["--shares", "equal"]
    if "drain_timeout" not in found:
        more += ["--drain-timeout", "2"]  # nobody else is to be waited for
    keys = all_keys(args.api_key, args.api_key_file)
    return RootWords(
        words=(*words, *more),
        host=_host_of(args.host),
        port=args.port,
        prefix=args.api_prefix,
        cert_file=args.ssl_cert_file,
        api_key=keys[0] if keys else None,
        model=args.model or "",
        names=_names_of(args),
        has_own_port="port" in found,
        splits_threads="threads" not in found,
    )


def _model_words(args: argparse.Namespace, *, has_list: bool, has_default: bool) -> list[str]:
    """Returns the words that name the model, as a file that is here; sets `args.model`."""
    from dllama.cli.model_name import name_models

    if args.model is None and not has_list:
        if not has_default:
            return ["--models-autoload"]
        args.model = str(DEFAULT_MODEL)
    if args.model is None:
        return []
    name_models(args)
    name = getattr(args, "model_name", None)
    return ["--model", args.model, *(("--alias", name) if name and not args.alias else ())]


def _host_of(hosts: Sequence[str]) -> str:
    """Returns the address at which the chat finds the server. Raises ConfigError without one."""
    for host in hosts:
        if not host.startswith("unix:") and not host.endswith(".sock"):
            return ANY_ADDRESS.get(host, host)
    raise ConfigError(
        "A chat finds its server by an address, and --host names unix sockets alone; add "
        "127.0.0.1, or serve without a chat: dllama --server."
    )


def _names_of(args: argparse.Namespace) -> frozenset[str]:
    from dllama.cli.server.model_facts import model_id

    if args.model is None:
        return frozenset()
    name = getattr(args, "model_name", None)
    return frozenset({model_id(args.model), *args.alias, *((name,) if name else ())})
