"""Where the numbers of an exchange are, in arrays of int64 that Python and compiled code share."""

from __future__ import annotations

# of a session: what stays the same, and what both Python and compiled code count
(
    SEQUENCE,  # the collective this rank is in
    N_EARLY,  # messages that Python has filed
    SINCE_NS,  # when this rank began to compute
    COMPUTE_NS, WAIT_NS, NETWORK_NS,  # sums
    SENT_BYTES, RECEIVED_BYTES,  # sums
    STAGE,  # of an exchange that ended early
    STARTED_NS, SLOWEST_NS,  # of this exchange
    N_SENT,  # peers that have been sent to
    RESTING,  # messages to sleep for at once
    POLL_NS,  # how long to poll for a message before sleeping
    RANK, WORLD_SIZE, INBOX,
    MESSAGES,  # the address of a zmq_msg_t for each rank, for what it sent; this rank's is spare
    SEND, RECEIVE, MOVE, DATA, SIZE, MORE, POLL,  # the addresses of libzmq's functions
    ITEMS, N_ITEMS,  # what zmq_poll waits for: the inbox, then the lines; none without lines
    SESSION_WORDS,
) = range(28)  # fmt: skip

# of each rank; LINE is the address of a line's words, 0 where there is none
OUT, RING_OUT, RING_IN, LINE, FROM, PAYLOAD, PEER_WORDS = range(7)

# of a call, and behind them the addresses of all payloads in rank order
IS_EXACT, N_BYTES, ADDEND, TOTAL, MESSAGE, CALL_WORDS = range(6)

NOT_BEGUN, SENDING, RECEIVING = range(3)  # stages
NOT_YET, BY_ZMQ, BY_RING, BY_LINE = range(4)  # in FROM: how a rank's message came

MESSAGE_HEADER_BYTES = 48
SEQUENCE_AT, COMPUTE_AT = 20, 28  # in a message's header
ZMQ_MSG_BYTES = 64

SPIN_NS = 1_000_000
"""How long a rank polls for a message before it blocks. A core that sleeps takes tens of
microseconds to wake, at every collective; yielding between two polls leaves the core to ZeroMQ's
own thread."""

AWAY_NS = 200_000  # a yield that takes longer means that another thread needs this core
N_RESTS = 64  # exchanges to sleep in at once after that: those of a token or two
RING_LOOKS = 200  # polls of shared rings between two of the socket: some microseconds
