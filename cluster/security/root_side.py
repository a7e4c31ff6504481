"""The root's part of an introduction: what it says to a worker, and what it makes of the answer.

No sockets. Links are plain until both sides agree; what is said here is keys, nonces and versions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.security.cluster_key import ClusterKey
from cluster.security.keys import is_key
from cluster.security.pins import Pins
from cluster.security.settings import Security
from cluster.security.transcript import ROOT, WORKER, transcript
from cluster.sockets import Address
from cluster.wire.features import own_features
from cluster.wire.messages import Introduced, Introduction, Proof
from dllama.errors import ClusterError, ConfigError, ProtocolError


class RootSide:
    """One conversation with one worker. `nonce` is another one for each."""

    def __init__(
        self, worker: Address, introduction: Introduction, cluster_key: ClusterKey | None
    ) -> None:
        self.worker = worker
        self.introduction = introduction
        self._cluster_key = cluster_key
        self._found: Introduced | None = None
        self.complaint = ""  # why the worker cannot be trusted; raised once it has been told

    @property
    def is_introduced(self) -> bool:
        """Whether the worker has said who it is."""
        return self._found is not None

    @property
    def introduced(self) -> Introduced:
        """What the worker has said of itself. Raises ProtocolError where it has said nothing."""
        if self._found is None:
            raise ProtocolError(f"worker {self.worker} goes on without having said who it is")
        return self._found

    def answer(self, found: Introduced) -> Proof:
        """Takes in what the worker says of itself and returns the root's proof.

        A worker that proves nothing is told all the same, so that its log says what is wrong.
        """
        self._found = found
        self.complaint = self._complaint_about(found)
        if self._cluster_key is None:
            return Proof(found.nonce, "")
        facts = transcript(self.introduction, found)
        return Proof(found.nonce, self._cluster_key.proof(ROOT, facts))

    def _complaint_about(self, found: Introduced) -> str:
        if found.answers != self.introduction.nonce:
            return (
                f"worker {self.worker} answered an earlier hello and not this one: somebody on the "
                "network replays what was said before. Nothing was sent there"
            )
        if self._cluster_key is None:
            return ""
        facts = transcript(self.introduction, found)
        if not found.proof:
            return (
                f"worker {self.worker} has no cluster key and this root has one; start "
                "dllama-worker there with --cluster-key and the same key"
            )
        if not self._cluster_key.is_proof(found.proof, WORKER, facts):
            return (
                f"worker {self.worker} has another cluster key than this root; start both with the "
                "same --cluster-key"
            )
        return ""


def root_sides(
    own: Security, workers: Sequence[Address], release: str, new_nonce: Callable[[], str]
) -> list[RootSide]:
    """Returns the root's part for each worker. Raises ConfigError where links have to be encrypted
    and this node's key cannot be kept."""
    is_wanted = any(own.has_to_encrypt(worker.host) for worker in workers)
    key = own.pair().public if is_wanted else ""
    has_key = own.cluster_key is not None
    return [
        RootSide(
            worker,
            Introduction(release, list(own_features()), key, new_nonce(), own.encrypts, has_key),
            own.cluster_key,
        )
        for worker in workers
    ]


def agree_on_encryption(own: Security, sides: Sequence[RootSide]) -> bool:
    """Returns whether the links of a cluster are encrypted: all are, unless all nodes are on one
    machine or nobody encrypts.

    Raises ConfigError where one side encrypts and the other does not.
    """
    wanted = [own.has_to_encrypt(side.worker.host) for side in sides]
    for side, is_wanted in zip(sides, wanted, strict=True):
        found = side.introduced
        if found.has_to_encrypt and not own.encrypts:
            raise ConfigError(
                f"worker {side.worker} encrypts its links and this root was started with "
                "--no-encrypt; start the root without it, or dllama-worker with it too"
            )
        if is_wanted and not found.encrypts:
            raise ConfigError(
                f"worker {side.worker} was started with --no-encrypt and this root encrypts its "
                "links; start dllama-worker without it, or the root with it too"
            )
        if found.has_to_encrypt and not is_wanted:
            raise ConfigError(
                f"worker {side.worker} is no process of this machine, though its name says so; "
                "name it by an address that other machines reach, or start both sides with "
                "--no-encrypt"
            )
    if not any(wanted):
        return False
    for side in sides:
        if not (side.introduced.port and is_key(side.introduced.key)):
            raise ConfigError(
                f"worker {side.worker} takes links from its own machine only and this cluster has "
                "others too; start dllama-worker there without --no-encrypt, and with a --host "
                "that the other machines reach"
            )
    return True


def check_pins(own: Security, sides: Sequence[RootSide]) -> None:
    """Raises ClusterError for a worker whose key is another than at first sight. A worker that has
    the cluster key proves its own by it."""
    if own.cluster_key is None:
        pins = own.known_nodes()
        for side in sides:
            complaint = pins.complaint(str(side.worker), side.introduced.key)
            if complaint:
                raise ClusterError(f"worker {complaint}")


def pin_all(own: Security, sides: Sequence[RootSide]) -> None:
    """Keeps the keys of workers that have shown that they hold them."""
    if own.cluster_key is None:
        pins: Pins = own.known_nodes()
        for side in sides:
            pins.add(str(side.worker), side.introduced.key)
