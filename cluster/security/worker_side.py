"""The worker's part of an introduction, and whom it lets in. No sockets, no clock."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from cluster.security.keys import is_key
from cluster.security.peer import Peer
from cluster.security.settings import Security
from cluster.security.transcript import ROOT, WORKER, transcript
from cluster.wire.messages import (
    Admitted,
    CloseSession,
    Introduced,
    Introduction,
    Message,
    Proof,
    Refused,
)
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

MAX_OPEN = 256  # introductions under way; the oldest is forgotten
MAX_ADMITTED = 4096  # keys and peers that were admitted; the oldest is forgotten

K = TypeVar("K", str, Peer, tuple[str, str])


class _Open(NamedTuple):
    root: Introduction
    worker: Introduced


class WorkerSide:
    """Whom a daemon listens to. `key` is its public key, `port` is where it listens encrypted.

    `is_news` decides whether a refusal is logged, or only counted.
    """

    def __init__(
        self,
        security: Security,
        *,
        release: str,
        features: Sequence[str],
        key: str,
        port: int,
        new_nonce: Callable[[], str],
        is_news: Callable[[Peer, str], bool] = lambda peer, kind: True,
    ) -> None:
        self._security = security
        self._release = release
        self._features = list(features)
        self._key = key
        self._port = port
        self._new_nonce = new_nonce
        self._is_news = is_news
        self._open: OrderedDict[Peer, _Open] = OrderedDict()
        self._proved: OrderedDict[Peer, None] = OrderedDict()  # proved the cluster key
        self._keys: OrderedDict[str, None] = OrderedDict()  # said hello properly
        self._sound: OrderedDict[tuple[str, str], None] = OrderedDict()  # hosts and keys
        self._lock = threading.Lock()  # the gate's thread asks for _keys

    def hear(self, peer: Peer, message: Message) -> Message | None:
        """Returns the answer to a message that introduces a root, or to one that comes from nobody
        that may send it; None for a message that the daemon may act on."""
        if not peer.host:  # it has gone since: who it was is not known any more
            is_farewell = isinstance(message, CloseSession)  # whose epoch is a secret
            return None if is_farewell else Refused("the connection that this came by has gone")
        if isinstance(message, Introduction):
            return self._introduce(peer, message)
        if isinstance(message, Proof):
            return self._prove(peer, message)
        if peer.is_encrypted:
            return self._pinned(peer)
        reason = self._why_not_plain(peer)
        return self._refuse(peer, reason) if reason else None

    def only_versions(self, peer: Peer) -> Introduced | None:
        """Returns the answer to a message that cannot be read, where the peer is to see of this
        worker no more than what it runs; None where it may see the rest."""
        if peer.is_encrypted or not self._why_not_plain(peer):
            return None
        has_to = self._security.has_to_encrypt(peer.host)
        encrypts = self._security.encrypts
        return Introduced(self._release, self._features, "", "", "", encrypts, has_to, 0, "")

    def _why_not_plain(self, peer: Peer) -> str:
        if self._security.has_to_encrypt(peer.host):
            return (
                "this worker encrypts its links; start the root without --no-encrypt, or "
                "dllama-worker with it too"
            )
        is_unproved = self._security.cluster_key is not None and peer not in self._proved
        return _KEY_NEEDED if is_unproved else ""

    def may_enter(self, key: str) -> bool:
        """Returns whether the holder of a key may connect to the encrypted port. Called by the
        gate's thread."""
        with self._lock:
            return key in self._keys

    def _pinned(self, peer: Peer) -> Message | None:
        """Pins a root's key, which it has shown to hold, at first sight; returns the refusal of one
        that is another than before."""
        if (peer.host, peer.key) in self._sound or self._security.cluster_key is not None:
            return None
        try:
            complaint = self._complaint(peer.host, peer.key)
            pins = self._security.known_roots()
            if not complaint and pins.of(peer.host) is None and pins.add(peer.host, peer.key):
                log.info("a root at %s is known from now on by its key %s", peer.host, peer.key)
        except DllamaError as error:
            complaint = str(error)
        if complaint:
            return self._refuse(peer, complaint)
        _remember(self._sound, (peer.host, peer.key))
        return None

    def _introduce(self, peer: Peer, root: Introduction) -> Message:
        key = self._security.cluster_key
        if key is not None and not root.has_cluster_key:
            return self._refuse(peer, _KEY_NEEDED)
        if key is None and root.has_cluster_key:
            return self._refuse(
                peer,
                "it was started without a cluster key and the root has one; start dllama-worker "
                "with --cluster-key and the same key",
            )
        try:
            complaint = self._complaint(peer.host, root.key) if root.key else ""
        except DllamaError as error:
            complaint = str(error)
        if complaint:
            return self._refuse(peer, complaint)
        worker = Introduced(
            self._release,
            self._features,
            self._key,
            self._new_nonce(),
            root.nonce,
            self._security.encrypts,
            self._security.has_to_encrypt(peer.host),
            self._port,
            "",
        )
        if key is not None:
            proof = key.proof(WORKER, transcript(root, worker))
            worker = replace(worker, proof=proof)
        self._open[peer] = _Open(root, worker)
        self._open.move_to_end(peer)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return worker

    def _prove(self, peer: Peer, proof: Proof) -> Message:
        begun = self._open.pop(peer, None)
        if begun is None or proof.answers != begun.worker.nonce:
            return self._refuse(
                peer,
                "it was sent a proof that answers another hello: somebody on the network replays "
                "what was said before, or the worker was started anew meanwhile",
            )
        key = self._security.cluster_key
        if key is not None:
            if not key.is_proof(proof.proof, ROOT, transcript(begun.root, begun.worker)):
                return self._refuse(
                    peer,
                    "it has another cluster key than the root; start both with the same "
                    "--cluster-key",
                )
            _remember(self._proved, peer)
        if is_key(begun.root.key):
            with self._lock:
                _remember(self._keys, begun.root.key)
        return Admitted()

    def _complaint(self, address: str, key: str) -> str:
        """Returns why the key of a root is not to be trusted. One that knows the cluster key proves
        its own by it."""
        if self._security.cluster_key is not None or not self._key:
            return ""
        complaint = self._security.known_roots().complaint(address, key)
        return f"the root at {complaint}" if complaint else ""

    def _refuse(self, peer: Peer, reason: str) -> Refused:
        if self._is_news(peer, f"a root that was refused: {reason}"):
            log.warning("refused a root at %s: %s", peer.host, reason)
        return Refused(reason)


_KEY_NEEDED = (
    "it takes roots that have the cluster key only; start dllama-root with --cluster-key and the "
    "key of this worker"
)


def _remember(known: OrderedDict[K, None], which: K) -> None:
    known[which] = None
    known.move_to_end(which)
    if len(known) > MAX_ADMITTED:
        known.popitem(last=False)
