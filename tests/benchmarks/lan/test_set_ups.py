"""Which set-ups there are, and the commands of each."""

from __future__ import annotations

from pathlib import Path

from benchmarks.lan.set_ups import (
    Link,
    Programs,
    Sizes,
    background_command,
    peer_command,
    set_ups,
)
from benchmarks.random_model import SHAPES

ALL = Programs(
    Path("/dl/dllama"), Path("/lc/llama-batched-bench"), Path("/lc/ggml-rpc-server"),
    Path("/own/raw_tcp"),
)  # fmt: skip
SIZES = Sizes(SHAPES["tiny"], 1, 1, 4000)


def test_all_set_ups_have_names_of_their_own() -> None:
    found = set_ups(2, 1, ["exact", "q80"], [True, False], ALL)
    assert [set_up.name for set_up in found] == [
        "one node, 1 core", "one node, 2 cores", "2 nodes, exact", "2 nodes, q80",
        "2 nodes, exact, plain", "2 nodes, q80, plain", "distributed-llama, 2 nodes",
        "llama.cpp RPC, 2 nodes", "plain TCP in C, exact",
    ]  # fmt: skip
    assert [set_up.background for set_up in found[1:3]] == [None, "encrypted"]
    three = [set_up.name for set_up in set_ups(3, 2, ["exact"], [True], ALL)]
    assert three == [
        "one node, 2 cores", "one node, 6 cores", "3 nodes, exact", "distributed-llama, 3 nodes",
    ]  # fmt: skip
    assert len(set_ups(2, 1, ["exact"], [True], Programs())) == 3


def test_links_have_names() -> None:
    named = [Link(100).name, Link(2500).name, Link(1000, 0.5).name]
    assert named == ["100 Mbit/s", "2.5 Gbit/s", "1 Gbit/s, 0.5 ms one way"]


def test_a_worker_is_as_plain_as_its_root() -> None:
    plain, encrypted = set_ups(2, 2, ["f32"], [False, True], Programs())[2:]
    for set_up, is_plain in ((plain, True), (encrypted, False)):
        assert set_up.background is not None
        worker = background_command(set_up.background, 2, "10.0.0.2", Path("/own"), Programs())
        peer = peer_command(set_up, Path("m.gguf"), SIZES, ["10.0.0.2"], Programs())
        port = worker[worker.index("--port") + 1]
        assert ("--no-encrypt" in worker) is is_plain and ("--no-encrypt" in peer) is is_plain
        assert peer[3:8] == ["m.gguf", "2", f"10.0.0.2:{port}", "--sync-type", "f32"]
        assert worker[worker.index("--threads") + 1] == "2"


def test_one_node_hears_of_no_cluster() -> None:
    both = set_ups(2, 1, ["exact"], [True], Programs())[1]
    command = peer_command(both, Path("m.gguf"), SIZES, ["10.0.0.2"], Programs())
    assert command[3:] == ["m.gguf", "2"]


def test_the_others_find_their_servers() -> None:
    theirs, rpc, floor = set_ups(2, 1, ["exact"], [True], ALL)[3:]
    dim, n_layers = SIZES.config.dim, SIZES.config.n_layers
    for set_up, expected in (
        (theirs, ["/dl/dllama", "m", "1", "10.0.0.2:9990"]),
        (rpc, ["/lc/llama-batched-bench", "m", "1", "3", "10.0.0.2:50052"]),
        (floor, ["/own/raw_tcp", "10.0.0.2:9970", f"{4 * dim}", f"{2 * n_layers + 1}", "2000"]),
    ):
        assert set_up.background is not None
        server = background_command(set_up.background, 1, "10.0.0.2", Path("/own"), ALL)
        [address] = (word for word in expected if word.startswith("10.0.0.2:"))
        assert set(address.split(":")) <= set(server)
        assert peer_command(set_up, Path("m"), SIZES, ["10.0.0.2"], ALL)[3:] == expected


def test_a_floor_of_two_cores_reads_half_on_each() -> None:
    floor = set_ups(2, 2, ["q80"], [True], ALL)[-1]
    assert peer_command(floor, Path("m"), SIZES, ["10.0.0.2"], ALL)[-1] == "1000"
