"""Measures the nodes of a cluster before its model is cut, in a session that holds no weights."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import zmq

from cluster.machine import describe_machine
from cluster.measuring import measure_rank
from cluster.mesh.probe import ROW_BYTES
from cluster.mesh.sync_type import SyncType
from cluster.planning.measurements import MeasuredLink, Measurements, NodeFacts
from cluster.planning.store import MeasurementStore
from cluster.planning.work import ModelWork
from cluster.root.meeting import Meeting
from cluster.root.session_plan import ClusterConfig
from cluster.root.worker_links import WorkerLinks
from cluster.sockets import Context
from cluster.wire.features import MEASURES
from cluster.wire.measure_messages import Measure, Measured, check_measured
from cluster.wire.messages import Welcome
from dllama.errors import ClusterError
from dllama.host.container import available_memory
from dllama.qtypes import QType
from dllama.sharding.memory import PROCESS_BYTES
from kernels.cache import source_key

MEASURE_TIMEOUT_S = 180.0  # kernels may have to be compiled first
MOST_BYTES = 256 << 20  # of weights that are read meanwhile
ROOT = "this machine"


def types_by_bytes(work: ModelWork) -> list[QType]:
    """Returns the types of a model's matrices, that of which a token reads the most bytes in layers
    first: steps are measured with it. Routers in F32 would stand for all of a mixture else."""
    n_bytes: Counter[QType] = Counter()
    for info in work.tensors.values():
        if info.layer is not None:
            n_bytes[info.qtype] += info.read_bytes(work.config)
    return sorted(work.types, key=lambda qtype: -n_bytes[qtype])


class MeasuredNodes(NamedTuple):
    """Nodes that answered, the root first, and their figures."""

    facts: list[NodeFacts]
    measurements: Measurements


def measured_nodes(
    config: ClusterConfig,
    root: str,
    release: str,
    types: Sequence[QType],
    store: MeasurementStore,
    *,
    anew: bool,
) -> MeasuredNodes:
    """Greets all workers, and returns what the store knows of them or what is measured now;
    `anew` measures in any case. Steps are measured with the first type.

    Raises ConfigError, ClusterError, PeerLost, ProtocolError.
    """
    context: Context = zmq.Context()
    links = WorkerLinks(config.workers, context, release, config.security)
    try:
        welcomes = links.greet(config.hello_timeout_s)
        keys = _keys(config, welcomes, release, is_encrypted=links.is_encrypted)
        found = None if anew else store.find(keys, types, time.time())
        if found is None:
            _check_features(links)
            found = _measure(config, root, links, context, welcomes, list(dict.fromkeys(types)))
            store.keep(keys, found, time.time())
    finally:
        links.close()
        context.destroy()
    own = describe_machine("", config.threads, release)
    facts = [NodeFacts(ROOT, own.machine, available_memory())]
    for address, welcome in zip(config.workers, welcomes, strict=True):
        facts.append(NodeFacts(str(address), welcome.machine, welcome.memory_available))
    return MeasuredNodes(facts, found)


def _keys(
    config: ClusterConfig, welcomes: Sequence[Welcome], release: str, *, is_encrypted: bool
) -> list[str]:
    """Returns what tells nodes with other speeds apart, the root first."""
    own = describe_machine("", config.threads, release)
    names = [ROOT, *map(str, config.workers)]
    kind = "encrypted" if is_encrypted else "plain"
    return [
        " | ".join((name, w.host, w.cpu, w.isa, str(w.threads), w.release, source_key(), kind))
        for name, w in zip(names, [own, *welcomes], strict=True)
    ]


def _check_features(links: WorkerLinks) -> None:
    for link in links:
        if MEASURES not in link.side.introduced.features:
            raise ClusterError(
                f"worker {link.address} runs dllama {link.side.introduced.release}, which cannot "
                "measure itself; install the same dllama there, or name shares (--shares)"
            )


def _measure(
    config: ClusterConfig,
    root: str,
    links: WorkerLinks,
    context: Context,
    welcomes: Sequence[Welcome],
    types: list[QType],
) -> Measurements:
    meeting = Meeting(config, root, links, context, secrets.randbits(62) + 1)
    free = min([available_memory(), *(w.memory_available for w in welcomes)])
    asked = Measure(types, max(1 << 20, min(MOST_BYTES, free // 4)))
    try:
        needed = [PROCESS_BYTES + asked.max_bytes] * config.world_size
        meeting.open(welcomes, SyncType.F32, needed)
        with links.explained():
            for link in links:
                link.tell_session(asked)
            own = measure_rank(asked, meeting.mesh, config.threads, None)
        late = f"measured nothing within {MEASURE_TIMEOUT_S:g} s"
        answers = links.await_all(Measured, MEASURE_TIMEOUT_S, late)
    finally:
        meeting.close()
    found = [own, *answers]
    for rank, each in enumerate(found):
        check_measured(each, rank, config.world_size, types)
    pairs = [
        MeasuredLink(rank, link.rank, link.speed)
        for rank, each in enumerate(found)
        for link in each.links
    ]
    by_rank = Measurements([each.speeds for each in found], pairs)
    return by_rank.with_row_sum(ROW_BYTES, own.row_sum_us / 1e6)
