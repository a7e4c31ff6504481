"""What a node is told about the security of its links, and the files that belong to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.security.cluster_key import ClusterKey, parse_cluster_key
from cluster.security.home import home_folder
from cluster.security.keys import KeyPair, node_pair
from cluster.security.pins import Pins
from cluster.sockets import is_loopback
from dllama.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Security:
    """How a node guards its links. The default encrypts all but loopback and asks for no key.

    `encrypts_loopback` is for tests and measurements. `home` holds the node's key and what it knows
    of others; None: where home_folder() says.
    """

    encrypts: bool = True
    cluster_key: ClusterKey | None = None
    encrypts_loopback: bool = False
    home: Path | None = None

    def has_to_encrypt(self, host: str) -> bool:
        """Returns whether a link to a host, by name or address, must not be plain."""
        return self.encrypts and (self.encrypts_loopback or not is_loopback(host))

    def summary(self, host: str) -> str:
        """Returns in a few words whom a worker that listens on a host lets in, and whether links to
        other machines are encrypted."""
        asks = "asks for the cluster key" if self.cluster_key is not None else "asks for no key"
        if self.has_to_encrypt(host):
            return f"{asks}, links are encrypted"
        return f"{asks}, links are plain" + " (of this machine only)" * is_loopback(host)

    def pair(self) -> KeyPair:
        """Returns this node's key pair. Raises ConfigError where it cannot be kept or read."""
        return node_pair(self._folder())

    def known_nodes(self) -> Pins:
        """Returns a root's pins of workers."""
        return Pins(self._folder() / "known_nodes", "workers")

    def known_roots(self) -> Pins:
        """Returns a worker's pins of roots."""
        return Pins(self._folder() / "known_roots", "roots")

    def _folder(self) -> Path:
        return self.home or home_folder()


def security_of(cluster_key: str | None, *, encrypts: bool) -> Security:
    """Returns the Security that flags and the environment ask for. Raises ConfigError.

    `cluster_key` is KEY or @FILE, as in $DLLAMA_CLUSTER_KEY, which counts where there is no flag.
    """
    key = None if cluster_key is None else parse_cluster_key(cluster_key)
    if key is None and "DLLAMA_CLUSTER_KEY" in os.environ:
        key = _key_of_environment(os.environ["DLLAMA_CLUSTER_KEY"])
    return Security(encrypts, key, os.environ.get("DLLAMA_ENCRYPT_LOOPBACK", "0") != "0")


def _key_of_environment(text: str) -> ClusterKey:
    """Returns the key of $DLLAMA_CLUSTER_KEY: an empty one is a mistake, since whoever sets the
    variable wants strangers kept out. Raises ConfigError."""
    try:
        return parse_cluster_key(text)
    except ConfigError as error:
        raise ConfigError(
            f"$DLLAMA_CLUSTER_KEY: {error}; unset it where there is no cluster key"
        ) from None


def warn_if_plain(security: Security, hosts: Sequence[str]) -> None:
    """Says what it means where links to other machines are not encrypted."""
    if not security.encrypts and not all(is_loopback(host) for host in hosts):
        log.warning(
            "--no-encrypt: whoever is on the network between the nodes can read prompts, answers "
            "and weights, and change them%s",
            "; the cluster key is asked for at the first hello only"
            if security.cluster_key is not None
            else "; nobody is asked for a key",
        )
