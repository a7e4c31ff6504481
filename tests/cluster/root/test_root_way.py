"""Workers reach the root's rank, or it is told at once which address leads nowhere, and whose
it is."""

from __future__ import annotations

import socket
from collections.abc import Callable

import psutil
import pytest

from cluster.meeting_times import MESH_TIMEOUT_S
from cluster.root.root_way import listen_host, root_host, way_hint
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from dllama.errors import PeerLost
from tests.cluster.steps import logits
from tests.cluster.worker_process import WorkerProcess

StartWorker = Callable[..., WorkerProcess]
MakeRunner = Callable[..., ClusterRunner]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(400)]

HERE, PI = Address("127.0.0.1"), Address("10.0.0.2")
LOCAL_SIX, SIX = Address("::1"), Address("fd00::2")


def config(*workers: Address, advertise: str | None = None) -> ClusterConfig:
    return ClusterConfig(workers, 8, 64, 1, advertise=advertise, mesh_ports=[7, 5])


@pytest.mark.parametrize(
    ("workers", "advertise", "expected"),
    [
        ([HERE], None, "127.0.0.1"),
        ([HERE], "10.0.0.1", "0.0.0.0"),
        ([HERE, PI], "10.0.0.1", "0.0.0.0"),
        ([SIX], "fd00::1", "::"),
        ([LOCAL_SIX], None, "::1"),
        ([HERE, LOCAL_SIX], None, "::"),  # both come in there
        ([LOCAL_SIX], "fd00::1", "::"),
    ],
)
def test_the_root_listens_where_workers_come_from(
    workers: list[Address], advertise: str | None, expected: str
) -> None:
    assert listen_host(config(*workers, advertise=advertise)) == expected


def test_what_is_advertised_comes_before_what_is_found_out() -> None:
    assert root_host(config(HERE), HERE) == "127.0.0.1"
    assert root_host(config(HERE, advertise="me"), HERE) == "me"
    assert "--advertise of the root gave that address" in way_hint(config(HERE, advertise="me"))
    hint = way_hint(config(HERE))
    assert "address on the way to the worker" in hint and "ports 5 to 7, or" in hint


def test_an_advertised_address_that_leads_nowhere_is_named_at_once(
    start_worker: StartWorker, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root listens on IPv4. Its rank knows why before it has waited for the mesh."""
    monkeypatch.setattr("cluster.root.meeting.MESH_TIMEOUT_S", 90.0)
    assert MESH_TIMEOUT_S < 90.0
    worker = start_worker()
    told = r"cannot join: there is no way from this worker to \[::1\]:\d+ .*--advertise of the root"
    with pytest.raises(PeerLost, match=told):
        make_runner([worker], advertise="::1").start()
    worker.await_no_session()
    assert "there is no way from this worker to [::1]" in worker.output
    runner = make_runner([worker], advertise="127.0.0.1")
    runner.start()
    assert logits(runner, [5, 6, 7]).size


def test_a_cluster_of_one_machine_meets_by_ipv6(
    start_worker: StartWorker, make_runner: MakeRunner
) -> None:
    """The root listens where its worker does, and nowhere else."""
    if not has_loopback_six():
        pytest.skip("this machine has no ::1")
    worker = start_worker(host="::1")
    worker.address = Address("::1", worker.address.port)
    runner = make_runner([worker])
    runner.start()
    assert logits(runner, [5, 6, 7]).size
    listening = {
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert "::1" in listening and not listening & {"::", "0.0.0.0"}


def has_loopback_six() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
