"""The gate answers libzmq's questions, and lets clients wait for an answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from cluster.security import gate as gate_module
from cluster.security.gate import ZAP_ENDPOINT, Gate, read_question
from cluster.security.keys import new_pair
from cluster.security.links import LinkSecurity, connect_encrypted
from cluster.sockets import Context, Socket

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


@pytest.fixture
def context() -> Iterator[Context]:
    made: Context = zmq.Context()
    yield made
    made.destroy(linger=0)


def question(number: int, domain: str = "mesh", key: bytes = bytes(32)) -> list[bytes]:
    """As libzmq asks, by a DEALER with the envelope of a REQ."""
    about = [str(number).encode(), domain.encode(), b"127.0.0.1", b"", b"CURVE", key]
    return [b"", b"1.0", *about]


def asker(context: Context) -> Socket:
    made = context.socket(zmq.DEALER)
    made.rcvtimeo = 10_000
    made.connect(ZAP_ENDPOINT)
    return made


def test_only_questions_about_keys_are_read() -> None:
    sound = [b"id", *question(1)]
    found = read_question(sound)
    assert found is not None and (found.domain, len(found.key)) == ("mesh", 40)
    unsound = [[*sound[:7], name, sound[8]] for name in (b"NULL", b"PLAIN", b"GSSAPI")]
    unsound += [[], sound[:-1], [*sound, b""], [*sound[:8], b"short"]]
    for frames in (*unsound, [*sound[:2], b"2.0", *sound[3:]]):
        assert read_question(frames) is None


def test_a_client_waits_until_it_is_known_who_belongs(context: Context) -> None:
    """As a rank does whose own Join came first."""
    server, client, stranger = (new_pair() for _ in range(3))
    security = LinkSecurity(context, server)
    security.start()
    inbox = context.socket(zmq.PULL)
    inbox.rcvtimeo = 500
    security.listen(inbox, "mesh")
    port = inbox.bind_to_random_port("tcp://127.0.0.1")
    outs = []
    for pair in (client, stranger):
        out = context.socket(zmq.PUSH)
        connect_encrypted(out, pair, server.public)
        out.connect(f"tcp://127.0.0.1:{port}")
        out.send(pair.public.encode(), zmq.NOBLOCK)
        outs.append(out)
    with pytest.raises(zmq.Again):
        inbox.recv()
    security.admit("mesh", [client.public])
    inbox.rcvtimeo = 10_000
    frame = inbox.recv(copy=False)
    assert frame.bytes == client.public.encode() and frame.get("User-Id") == client.public
    inbox.rcvtimeo = 500
    with pytest.raises(zmq.Again):
        inbox.recv()
    for each in (inbox, *outs):
        each.close(linger=0)
    security.close()


def test_those_that_wait_are_bounded(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "MAX_WAITING", 3)
    gate = Gate(context)
    gate.start()
    link = asker(context)
    for number in range(5):
        link.send_multipart(question(number))
    refused = [link.recv_multipart() for _ in range(2)]
    assert [(r[2], r[3]) for r in refused] == [(b"0", b"400"), (b"1", b"400")]
    gate.set_policy("mesh", lambda key: True)
    welcome = [link.recv_multipart() for _ in range(3)]
    assert [(r[2], r[3]) for r in welcome] == [(b"2", b"200"), (b"3", b"200"), (b"4", b"200")]
    link.close()
    gate.close()
