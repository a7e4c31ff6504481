"""The sums of short steps as calls of a program (kernels/wire/exchange.py): a decoded token then
passes Python once, not at every half layer.

Compiled code sends and receives by the very sockets that the rest of the mesh uses, through the
libzmq that pyzmq brings along.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import zmq

from cluster.mesh.filing import Phase
from cluster.mesh.libraries import address_of_function, has_functions, load_library
from cluster.mesh.links import HEADER_BYTES, MeshLinks
from dllama.collective import Addend
from kernels.matmul.sums import FixedSums
from kernels.program import Call
from kernels.weights.layout import GROUP
from kernels.wire import places
from kernels.wire.exchange import exchange
from kernels.wire.fixed import NO_MARKS

_FUNCTIONS = {
    places.SEND: "zmq_send",
    places.RECEIVE: "zmq_msg_recv",
    places.MOVE: "zmq_msg_move",
    places.DATA: "zmq_msg_data",
    places.SIZE: "zmq_msg_size",
    places.MORE: "zmq_msg_more",
    places.POLL: "zmq_poll",
}

Key = tuple[int, int, tuple[int, ...]]


def _libzmq() -> ctypes.CDLL | None:
    """Returns libzmq; None where its functions cannot be found."""
    library, others = load_library(), ("zmq_msg_init", "zmq_msg_close")
    if library is None or not has_functions(library, (*_FUNCTIONS.values(), *others)):
        return None
    return library


class CompiledSums:
    """One rank's compiled sums; made when its links are connected."""

    def __init__(self, links: MeshLinks, world_size: int) -> None:
        self._links, self._world_size = links, world_size
        self._session, self._calls = links.counters, dict[Key, Call]()
        self._messages: dict[Key, np.ndarray] = {}  # with their headers, uint8
        self._library = _libzmq()
        self._zmq_messages = np.zeros((world_size, places.ZMQ_MSG_BYTES), np.uint8)
        self._peers = np.zeros((world_size, places.PEER_WORDS), np.int64)
        if self._library is not None:
            self._fill_in(self._library)

    @property
    def is_supported(self) -> bool:
        """False where libzmq's functions cannot be called from compiled code."""
        return self._library is not None

    @property
    def is_begun(self) -> bool:
        """True where a call ended early, and its sum has to be finished."""
        return bool(self._session[places.STAGE] != places.NOT_BEGUN)

    def call(self, x: Addend, out: np.ndarray) -> Call:
        """Returns the call that writes the sum of all ranks' x (T, width), contiguous and of whole
        groups, to `out`; the arrays have to stay where they are."""
        key = _key(x, out)
        if key not in self._calls:
            self._calls[key] = self._new_call(key, x, out)
        return self._calls[key]

    def finish_sending(self, x: Addend, out: np.ndarray) -> np.ndarray:
        """Sends what a call that ended early has not sent, files what it has received, and returns
        this rank's payload, uint8."""
        session, links = self._session, self._links
        message = self._messages[_key(x, out)]
        stage, n_sent = int(session[places.STAGE]), int(session[places.N_SENT])
        session[places.STAGE] = places.NOT_BEGUN
        if stage == places.SENDING:
            for rank in range(n_sent, self._world_size):
                if rank != links.rank:
                    links.send(rank, message.data)
        came = self._peers[:, places.FROM]
        n_counted = int(np.count_nonzero(came != places.NOT_YET))
        session[places.RECEIVED_BYTES] -= n_counted * len(message)  # they are counted once more
        for rank in np.flatnonzero(came == places.BY_ZMQ).tolist():
            links.keep([self._taken(rank)])
        if frames := self._spare_frames():
            links.keep(frames)
        came[:] = places.NOT_YET
        return message[HEADER_BYTES:]

    def close(self) -> None:
        """Frees what libzmq holds for this rank."""
        if self._library is not None:
            for rank in range(self._world_size):
                self._library.zmq_msg_close(self._message_at(rank))
        self._library = None

    def _fill_in(self, library: ctypes.CDLL) -> None:
        session, links = self._session, self._links
        for place, name in _FUNCTIONS.items():
            session[place] = address_of_function(library, name)
        library.zmq_msg_data.restype = ctypes.c_void_p
        library.zmq_msg_size.restype = ctypes.c_size_t
        session[places.RANK], session[places.WORLD_SIZE] = links.rank, self._world_size
        session[places.INBOX] = links.inbox.underlying
        session[places.MESSAGES] = self._zmq_messages.ctypes.data
        for rank in range(self._world_size):
            library.zmq_msg_init(self._message_at(rank))
            if rank != links.rank:
                self._peers[rank, : places.FROM] = links.ways_to(rank)
        n_lines = int(np.count_nonzero(self._peers[:, places.LINE]))
        if n_lines:
            self._items = np.zeros((1 + n_lines, 2), np.int64)
            self._items[0] = links.inbox.underlying, zmq.POLLIN << 32
            session[places.ITEMS], session[places.N_ITEMS] = self._items.ctypes.data, 1 + n_lines

    def _new_call(self, key: Key, x: Addend, out: np.ndarray) -> Call:
        is_exact = isinstance(x, FixedSums)
        addend, marks = (x.low, x.wide.reshape(-1)) if is_exact else (x, NO_MARKS)  # type: ignore[union-attr]
        assert isinstance(addend, np.ndarray) and addend.flags.c_contiguous
        assert out.flags.c_contiguous and addend.shape == out.shape and out.shape[1] % GROUP == 0
        message = np.zeros(HEADER_BYTES + addend.nbytes, np.uint8)
        self._links.pack_header(message.data, Phase.PARTIAL, 0, 0, 0)
        self._messages[key] = message
        call = np.zeros(places.CALL_WORDS + self._world_size, np.int64)
        call[: places.CALL_WORDS] = [
            is_exact, addend.nbytes, addend.ctypes.data, out.ctypes.data, message.ctypes.data
        ]  # fmt: skip
        has_rings = bool(self._peers[:, places.RING_IN].any())
        n_looks = places.RING_LOOKS if has_rings else 1
        return Call(exchange, (self._session, self._peers, call, marks, n_looks))

    def _message_at(self, rank: int) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._zmq_messages[rank].ctypes.data)

    def _size(self, rank: int) -> int:
        assert self._library is not None
        return int(self._library.zmq_msg_size(self._message_at(rank)))

    def _taken(self, rank: int) -> bytes:
        """Returns what a rank's zmq_msg_t holds, and frees it."""
        assert self._library is not None
        at = self._message_at(rank)
        data = ctypes.string_at(self._library.zmq_msg_data(at), self._size(rank))
        self._library.zmq_msg_close(at)
        self._library.zmq_msg_init(at)
        return data

    def _spare_frames(self) -> Sequence[bytes]:
        """Returns the frames of the message that nobody waited for; none where there is none."""
        assert self._library is not None
        own = self._links.rank
        has_more = bool(self._library.zmq_msg_more(self._message_at(own)))
        if not has_more and not self._size(own):
            return []
        return [self._taken(own), *(self._links.inbox.recv_multipart() if has_more else [])]


def _key(x: Addend, out: np.ndarray) -> Key:
    addend = x.low if isinstance(x, FixedSums) else x
    return addend.ctypes.data, out.ctypes.data, out.shape
