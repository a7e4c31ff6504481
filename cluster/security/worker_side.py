"""The worker's part of an introduction, and whom it lets in. No sockets, no clock."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from cluster.security.keys import is_key
from cluster.security.settings import Security
from cluster.security.transcript import ROOT, WORKER, transcript
from cluster.wire.messages import (
    Admitted,
    Introduced,
    Introduction,
    Message,
    Proof,
    Refused,
)
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

MAX_OPEN = 256  # introductions under way; the oldest is forgotten
MAX_ADMITTED = (
    4096  # keys and callers that were admitted; the one not heard of longest is forgotten
)


class Caller(NamedTuple):
    """Who sent a message to a daemon: the end of one link."""

    is_encrypted: bool
    identity: bytes
    address: str  # of the machine it comes from


K = TypeVar("K", str, Caller)


class _Open(NamedTuple):
    root: Introduction
    worker: Introduced


class WorkerSide:
    """Whom a daemon listens to. `key` is its public key, `port` is where it listens encrypted."""

    def __init__(
        self,
        security: Security,
        *,
        release: str,
        features: Sequence[str],
        key: str,
        port: int,
        new_nonce: Callable[[], str],
    ) -> None:
        self._security = security
        self._release = release
        self._features = list(features)
        self._key = key
        self._port = port
        self._new_nonce = new_nonce
        self._open: OrderedDict[Caller, _Open] = OrderedDict()
        self._callers: OrderedDict[Caller, None] = OrderedDict()  # proved the cluster key
        self._keys: OrderedDict[str, None] = OrderedDict()  # said hello properly
        self._lock = threading.Lock()  # the gate's thread asks for _keys

    def hear(self, caller: Caller, message: Message) -> Message | None:
        """Returns the answer to a message that introduces a root, or to one that comes from nobody
        that may send it; None for a message that the daemon may act on."""
        if isinstance(message, Introduction):
            return self._introduce(caller, message)
        if isinstance(message, Proof):
            return self._prove(caller, message)
        if caller.is_encrypted:
            return None  # the gate let it in
        if self._security.has_to_encrypt(caller.address):
            return self._refuse(
                caller,
                "this worker encrypts its links; start the root without --no-encrypt, or "
                "dllama-worker with it too",
            )
        if self._security.cluster_key is not None and caller not in self._callers:
            return self._refuse(caller, _KEY_NEEDED)
        return None

    def may_enter(self, key: str, address: str) -> bool:
        """Returns whether the holder of a key may connect to the encrypted port, and pins a key
        that it lets in for the first time. Called by the gate's thread."""
        with self._lock:
            is_known = key in self._keys
        try:
            complaint = self._complaint(address, key) if is_known else "it has not said hello"
            if not complaint and self._security.cluster_key is None:
                pins = self._security.known_roots()
                if pins.of(address) is None and pins.add(address, key):
                    log.info("a root at %s is known from now on by its key %s", address, key)
        except DllamaError as error:
            complaint = str(error)
        if complaint:
            log.warning("refused an encrypted link from %s: %s", address, complaint)
        return not complaint

    def _introduce(self, caller: Caller, root: Introduction) -> Message:
        key = self._security.cluster_key
        if key is not None and not root.has_cluster_key:
            return self._refuse(caller, _KEY_NEEDED)
        if key is None and root.has_cluster_key:
            return self._refuse(
                caller,
                "it was started without a cluster key and the root has one; start dllama-worker "
                "with --cluster-key and the same key",
            )
        try:
            complaint = self._complaint(caller.address, root.key) if root.key else ""
        except DllamaError as error:
            complaint = str(error)
        if complaint:
            return self._refuse(caller, complaint)
        worker = Introduced(
            self._release,
            self._features,
            self._key,
            self._new_nonce(),
            root.nonce,
            self._security.encrypts,
            self._security.has_to_encrypt(caller.address),
            self._port,
            "",
        )
        if key is not None:
            proof = key.proof(WORKER, transcript(root, worker))
            worker = replace(worker, proof=proof)
        self._open[caller] = _Open(root, worker)
        self._open.move_to_end(caller)
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return worker

    def _prove(self, caller: Caller, proof: Proof) -> Message:
        begun = self._open.pop(caller, None)
        if begun is None or proof.answers != begun.worker.nonce:
            return self._refuse(
                caller,
                "it was sent a proof that answers another hello: somebody on the network replays "
                "what was said before, or the worker was started anew meanwhile",
            )
        key = self._security.cluster_key
        if key is not None:
            if not key.is_proof(proof.proof, ROOT, transcript(begun.root, begun.worker)):
                return self._refuse(
                    caller,
                    "it has another cluster key than the root; start both with the same "
                    "--cluster-key",
                )
            _remember(self._callers, caller)
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

    def _refuse(self, caller: Caller, reason: str) -> Refused:
        log.warning("refused a root at %s: %s", caller.address, reason)
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
