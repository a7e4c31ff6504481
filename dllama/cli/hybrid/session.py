"""A server and a chat with it in one terminal, from the flags to the end of both."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from dllama.cli.chat_client import ChatClient
from dllama.cli.hybrid.child import Child
from dllama.cli.hybrid.local_server import LocalServer, free_port, running
from dllama.cli.hybrid.port_owner import Owner, free_after, owner_of
from dllama.cli.hybrid.root_words import RootWords, read_root_words
from dllama.cli.terminal.output import count_of, note
from dllama.cli.terminal.text_input import typed_text
from dllama.errors import ClusterError, ConfigError

LOOK_S = 0.5
KEY_BYTES = 24


def run_hybrid(
    args: argparse.Namespace, *, has_default_model: bool, is_private: bool = False
) -> int:
    """Runs a server and a chat until the user leaves. `args.rest` are flags of dllama-root;
    `is_private`: nobody else is served. Raises DllamaError."""
    root = read_root_words(args.rest, has_default_model=has_default_model, n_workers=args.n_workers)
    if is_private:
        root = replace(root, host="127.0.0.1", port=0, api_key=secrets.token_urlsafe(KEY_BYTES))
    owner = owner_of(root.address(), root.host, root.port) if root.port else None
    if owner is not None:
        if owner.models is not None:
            return _talk(_client_of(root, args, _named_in(root, owner)), args, [])
        root = _beside(root)
    root = replace(root, port=root.port or free_port())
    server = LocalServer(
        address=root.address(),
        words=_words_of(root, is_private=is_private),
        n_workers=args.n_workers,
        splits_threads=root.splits_threads,
        environment=_secrets_of(root, args.cluster_key, is_private=is_private),
    )
    with running(server) as children:
        _announce(root, args.n_workers, children[-1], is_private=is_private)
        if args.no_chat or not (sys.stdin.isatty() and sys.stdout.isatty()):
            return _serve(root.url, children)
        return _talk(_client_of(root, args, None), args, children)


def _words_of(root: RootWords, *, is_private: bool) -> tuple[str, ...]:
    words = (*root.words, "--port", str(root.port))
    return (*words, "--host", root.host, "--no-ui") if is_private else words


def _secrets_of(root: RootWords, key: str | None, *, is_private: bool) -> dict[str, str]:
    """Returns what children are told by their environment: others can read a command line."""
    told = {"DLLAMA_CLUSTER_KEY": key} if key else {}
    if is_private and root.api_key is not None:
        told["DLLAMA_ROOT_API_KEY"] = root.api_key
    return told


def _named_in(root: RootWords, owner: Owner) -> str | None:
    """Returns what the server that is there calls the model that was named, None for no model.
    Raises ConfigError where it has another."""
    names = owner.names()
    if not root.model:
        return None
    for name in names:
        if name in root.names:
            return name
    raise ConfigError(
        f"Another dllama serves {', '.join(names) or 'nothing'} at port {root.port}, and not "
        f"{root.model}; name another port with --port, or leave -m out to talk to that one."
    )


def _beside(root: RootWords) -> RootWords:
    """Returns the server at another port than one that another program has. Raises ConfigError
    where somebody chose the port."""
    port = None if root.has_own_port else free_after(root.host, root.port)
    if port is None:
        raise ConfigError(
            f"Port {root.port} is taken by another program; name another with --port, or end that "
            "program."
        )
    note(f"port {root.port} is taken by another program; this server has port {port}")
    return replace(root, port=port)


def _announce(root: RootWords, n_workers: int, child: Child, *, is_private: bool) -> None:
    what = root.model or "the models of this machine"
    who = f"{count_of(n_workers, 'worker')} and a root serve" if n_workers else "a server has"
    if is_private:
        note(f"{what} answers here alone")
    else:
        note(f"{who} {what} at {root.url}/v1")
        note(f"in a browser: {root.url}/")
    note(f"log: {child.log}")


def _client_of(root: RootWords, args: argparse.Namespace, name: str | None) -> ChatClient:
    client = ChatClient(root.address(), {"model": name} if name else {})
    if args.system:
        client.system = typed_text(args.system, "--system")
    return client


def _serve(url: str, children: Sequence[Child]) -> int:
    print(url, flush=True)
    check = _watch(children)
    while True:
        check()
        time.sleep(LOOK_S)


def _watch(children: Sequence[Child]) -> Callable[[], None]:
    """Returns what raises ClusterError once the root, the last of the children, has ended. It goes
    on without a worker that has, which is told once."""
    told: set[Child] = set()

    def check() -> None:
        for child in children[:-1]:
            if child not in told:
                try:
                    child.check()
                except ClusterError as error:
                    told.add(child)
                    note(f"{error} The root goes on without it.")
        for child in children[-1:]:
            child.check()

    return check


def _talk(client: ChatClient, args: argparse.Namespace, children: Sequence[Child]) -> int:
    from dllama.cli.talk.talking import talk

    if not children:
        note(f"a dllama serves at {client.server} already: the chat is with that one")

    check = _watch(children)
    return talk(client, is_plain=args.plain, keeps_history=not args.no_history, on_failure=check)
