"""Decides who may connect to the encrypted sockets of a context.

libzmq asks before it lets a client in whose handshake was sound (ZAP, RFC 27). A thread answers,
which sleeps without the GIL but for handshakes, so that it costs computing nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import zmq
from zmq.utils import z85

from cluster.sockets import Context, Socket

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_CONTROL_ENDPOINT = "inproc://dllama.gate"
MAX_WAITING = 256  # clients whose answer is not known yet; the oldest is refused
_FRAMES = 9  # at least: envelope of 2, version, id, domain, address, identity, mechanism, key

Policy = Callable[[str], bool]
"""Whether the holder of a public key, or who tells a password, may connect."""


class Question(NamedTuple):
    envelope: list[bytes]
    number: bytes
    domain: str
    key: str


def read_question(frames: list[bytes]) -> Question | None:
    """Returns libzmq's question, or None for anything that is none about a public key
    or a password."""
    if len(frames) < _FRAMES or frames[2] != b"1.0":
        return None
    mechanism, *credentials = frames[7:]
    if mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
        told = z85.encode(credentials[0]).decode()
    elif mechanism == b"PLAIN" and len(credentials) == 2:
        told = credentials[1].decode("ascii", "replace")
    else:
        return None
    return Question(frames[:2], frames[3], frames[4].decode("ascii", "replace"), told)


class Gate:
    """The thread that answers for one context; `start` comes before any socket listens."""

    def __init__(self, context: Context) -> None:
        self._policies: dict[str, Policy] = {}
        self._waiting: deque[Question] = deque()
        self._zap: Socket = context.socket(zmq.ROUTER)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._orders: Socket = context.socket(zmq.PAIR)  # of the owner, heard by the thread
        self._orders.setsockopt(zmq.LINGER, 0)
        self._heard: Socket = context.socket(zmq.PAIR)
        self._heard.setsockopt(zmq.LINGER, 0)
        self._thread = threading.Thread(target=self._serve, name="gate", daemon=True)

    def start(self) -> None:
        self._zap.bind(ZAP_ENDPOINT)
        self._heard.bind(_CONTROL_ENDPOINT)
        self._orders.connect(_CONTROL_ENDPOINT)
        self._thread.start()

    def set_policy(self, domain: str, policy: Policy) -> None:
        """Decides by `policy` from now on who connects to the sockets of a domain. It is called by
        the gate's thread. Clients of a domain without one wait."""
        self._policies[domain] = policy
        self._orders.send(b"again")

    def close(self) -> None:
        if self._thread.ident is not None:
            self._orders.send(b"stop")
            self._thread.join()
        for each in (self._orders, self._heard, self._zap):
            each.close()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._zap, zmq.POLLIN)
        poller.register(self._heard, zmq.POLLIN)
        while True:
            for ready, _ in poller.poll():
                if ready is self._zap:
                    question = read_question(self._zap.recv_multipart())
                    if question is not None:
                        self._waiting.append(question)
                elif self._heard.recv() == b"stop":
                    return
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        for _ in range(len(self._waiting)):
            question = self._waiting.popleft()
            policy = self._policies.get(question.domain)
            if policy is None:
                self._waiting.append(question)
            else:
                self._answer(question, policy(question.key))
        while len(self._waiting) > MAX_WAITING:
            self._answer(self._waiting.popleft(), False)

    def _answer(self, question: Question, is_welcome: bool) -> None:
        code = b"200" if is_welcome else b"400"
        user = question.key.encode()  # which each message of this client tells (User-Id)
        self._zap.send_multipart(
            [*question.envelope, b"1.0", question.number, code, b"", user, b""]
        )
