"""Addresses as people write them, ports as machines have them."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time

import pytest
import zmq

from cluster.root.session_plan import ClusterConfig, peer_endpoints
from cluster.sockets import (
    Address,
    address_towards,
    bind_first_free,
    endpoint,
    make_socket,
    parse_address,
    parse_addresses,
    session_ports,
)
from dllama.errors import ClusterError, ConfigError
from tests.cluster.front.zmtp import frame, shake_hands
from tests.cluster.worker_process import HOUSE


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pi", Address("pi", 9998)),
        (" 10.0.0.2:77 ", Address("10.0.0.2", 77)),
        ("[fe80::1]:5000", Address("fe80::1", 5000)),
        ("[fe80::1]", Address("fe80::1", 9998)),
        ("[::1]", Address("::1", 9998)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":99",
        "pi:",
        "pi:x",
        "pi:0",
        "pi:70000",
        "a b",
        "tcp://a:1",
        "_pi",
        "..",
        "-pi",
        "[]",
        "[%1]",
    ],
)
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=r"address|port"):
        parse_address(text)


def test_a_list_of_addresses() -> None:
    assert parse_addresses("a, b:1,") == [Address("a"), Address("b", 1)]
    with pytest.raises(ConfigError, match="named twice"):
        parse_addresses("a,a:9998")


def test_a_port_in_use_is_passed_over_or_said() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as one, context.socket(zmq.PULL) as two:
        port = bind_first_free(one, "127.0.0.1", [0])
        assert bind_first_free(two, "127.0.0.1", [port, 0]) != port
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            bind_first_free(two, "127.0.0.1", [port])


def test_a_host_that_is_not_ours_is_said() -> None:
    said = pytest.raises(ConfigError, match="cannot listen on 203")
    with zmq.Context() as context, context.socket(zmq.PULL) as bound, said:
        bind_first_free(bound, "203.0.113.1", [0])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sockets_of_both_kinds_of_addresses_reach_each_other(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
    with zmq.Context() as context:
        inbox, out = (
            make_socket(context, kind, host=host, max_message_bytes=100)
            for kind in (zmq.PULL, zmq.PUSH)
        )
        with inbox, out:
            out.connect(endpoint(host, bind_first_free(inbox, host, [0])))
            assert out.poll(5_000, zmq.POLLOUT)
            out.send(b"hello")
            assert inbox.poll(5_000) and inbox.recv() == b"hello"


def test_sessions_of_neighbouring_daemons_stay_within_their_64_ports() -> None:
    assert set(session_ports(9998)) == set(range(9999, 10063))
    assert session_ports(9998)[0] == 10062


def test_our_address_towards_loopback_is_loopback() -> None:
    assert address_towards("127.0.0.1", 9998) == "127.0.0.1"
    with pytest.raises(ClusterError, match="no way from here"):
        address_towards("no-such-host.invalid", 9998)


def test_ranks_know_each_other_by_addresses_that_lead_there() -> None:
    """A worker beside the root is reached at the root's address by all but its neighbours."""
    workers = [Address("127.0.0.1", 9998), Address("10.0.0.2", 9998)]
    ports = {0: 1, 1: 2, 2: 3}
    local, far = "tcp://127.0.0.1:", "tcp://10.0.0.2:3"
    assert peer_endpoints(0, workers, ports, "127.0.0.1") == [local + "1", local + "2", far]
    assert peer_endpoints(1, workers, ports, "127.0.0.1") == [local + "1", local + "2", far]
    assert peer_endpoints(0, workers, ports, "pi") == ["tcp://pi:1", local + "2", far]
    root = "tcp://10.0.0.1:"
    assert peer_endpoints(2, workers, ports, "10.0.0.1") == [root + "1", root + "2", far]


def test_shares_are_one_per_node() -> None:
    config = ClusterConfig([Address("a")], 1, 1, 1, shares=[3, 2, 1])
    with pytest.raises(ConfigError, match="names 3 nodes and there are 2"):
        config.checked_shares()
    assert ClusterConfig([Address("a")], 1, 1, 1).checked_shares() == [1.0, 1.0]


def test_a_peer_that_leaves_a_full_queue_ends_no_process() -> None:
    """libzmq 4.3.5 would: the link is cut while messages wait for room and a ping is due."""
    code = (
        "import time, zmq\n"
        "from cluster.sockets import make_socket\n"
        "made = make_socket(zmq.Context(), zmq.ROUTER, host='127.0.0.1', max_message_bytes=99)\n"
        "made.bind('tcp://127.0.0.1:0')\n"
        "print(made.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(':')[2], flush=True)\n"
        "input()\n"
        "while made.poll(300): made.recv_multipart()\n"
        "made.context.destroy()\n"
        "print('alive')\n"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HOUSE,
    )  # fmt: skip
    assert victim.stdout is not None
    port = int(victim.stdout.readline())
    strangers = [shake_hands(("127.0.0.1", port)) for _ in range(3)]
    for stranger in strangers:
        stranger.sendall(frame(b"x") * 2_000 + frame(b"\x04PING\0\0", flags=4))
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()  # at once, without a farewell
    time.sleep(1.5)  # a heartbeat
    said, complaint = victim.communicate("\n", timeout=60)
    assert said == "alive\n" and victim.returncode == 0, complaint
