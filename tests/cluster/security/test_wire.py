"""What somebody on the network sees of a cluster: nothing that can be read, or else the check
itself would not see it either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.security.settings import Security
from cluster.sockets import SESSION_PORTS, Address
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_for
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.security.recording_proxy import RecordingProxy
from tests.cluster.steps import prefill
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_worker_port

StartWorker = Callable[..., WorkerProcess]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]

NEAR = "127.0.0.2"  # where the root finds the worker: the proxy
PROMPT = list(range(20, 50))
PIECE_BYTES = 64
NAMES = [b"OpenSession", b"SessionReady", b"StepCall", b"manifest", b"max_seq_len"]


def secrets_of(source: ArraySource) -> Iterator[bytes]:
    """What nobody is to see: ids of the prompt, and pieces of all tensors that travel."""
    yield np.array(PROMPT, np.int32).tobytes()
    shard = plan_for(source.config, source.tensors, [1, 1])[1]
    for info, data in cut_tensors(source, shard):
        raw = data.tobytes()
        assert len(raw) == info.n_bytes
        for at in range(0, len(raw) - PIECE_BYTES + 1, 1_000):
            yield raw[at : at + PIECE_BYTES]


@pytest.mark.parametrize("encrypts", [True, False], ids=["encrypted", "--no-encrypt"])
def test_nothing_can_be_read_on_the_wire(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encrypts: bool
) -> None:
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "0")  # as between machines
    flags: dict[str, object] = {"encrypts": encrypts, "encrypts_loopback": encrypts}
    worker = start_worker(
        port=own_worker_port(), security={"home": str(tmp_path / "worker"), **flags}
    )
    security = Security(encrypts, encrypts_loopback=encrypts, home=tmp_path / "root")
    port = worker.address.port
    config = ClusterConfig([Address(NEAR, port)], 8, 64, 1, security=security)
    source = ArraySource(small_config())
    with RecordingProxy(NEAR, "127.0.0.1", range(port, port + SESSION_PORTS + 1)) as proxy:
        runner = ClusterRunner(source, config, load_numpy_rank)
        try:
            runner.start()
            runner.run(prefill(PROMPT))
            runner.run(prefill([7], start=len(PROMPT)))  # a token is decoded
        finally:
            runner.close()
        assert proxy.has_seen(b"Introduction"), "the root did not come by the proxy"
        pieces = list(secrets_of(source))
        assert len(pieces) > 20
        seen = [piece for piece in (*NAMES, *pieces) if proxy.has_seen(piece)]
    if encrypts:
        assert not seen
    else:  # some pieces of tensors are cut in two by the way they travel
        assert {*NAMES, pieces[0]} <= {*seen} and len(seen) > 0.75 * len(pieces)
    n_seen = sum(len(stream) for stream in proxy.streams)
    assert n_seen > sum(info.n_bytes for info in source.tensors.values()) / 3  # weights passed
