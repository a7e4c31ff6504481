"""The figures of a cluster's nodes, as GET /stats and GET /cluster/nodes show them."""

from __future__ import annotations

import socket
from dataclasses import replace

from cluster.root.members import Members, State
from cluster.root.session import ClusterSession
from dllama.host.container import total_memory
from dllama.nodes import MAX_SENTENCE, NodeRow
from dllama.runtime.meter import RankIdentity, rss_bytes, stats_row
from kernels.cpu import isa


def worker_rows(session: ClusterSession, threads: int) -> list[dict[str, object]]:
    """Returns `workers` of GET /stats, a row for each rank. `threads` are the root's own."""
    hosts = [socket.gethostname(), *(str(link.address) for link in session.links)]
    isas = [isa(), *(w.isa for w in session.welcomes)]
    all_threads = [threads, *(w.threads for w in session.welcomes)]
    identities = [
        RankIdentity(shard.rank, host, its_isa, n_threads, len(shard.kv_heads), len(shard.hidden))
        for shard, host, its_isa, n_threads in zip(
            session.shards, hosts, isas, all_threads, strict=True
        )
    ]
    rss = [rss_bytes(), *(link.rss_bytes for link in session.links)]
    rows = [
        stats_row(identity, figures, n_bytes)
        for identity, figures, n_bytes in zip(identities, session.rank_figures(), rss, strict=True)
    ]
    for row, shard in zip(rows, session.shards, strict=True):
        row["weights"] = session.weights.row(shard.rank)
    return rows


def node_rows(
    members: Members,
    session: ClusterSession | None,
    root_share: float,
    since: float,
    now: float,
) -> list[NodeRow]:
    """Returns all nodes, the root first. `session` is the one that is alive, and `since`
    says when it began, or when the last one ended."""
    ranks = {} if session is None else {link.address: link.rank for link in session.links}
    state = State.JOINING if session is None else State.PRESENT
    root = NodeRow(
        socket.gethostname(), state, root_share, now - since,
        rss_bytes=rss_bytes(), memory_bytes=total_memory(),
    )  # fmt: skip
    rows = [_with_part(root, session, 0)]
    for member in members:
        row = NodeRow(
            str(member.address),
            member.state,
            member.share,
            now - member.since,
            member.reason[:MAX_SENTENCE],
        )
        rows.append(_with_part(row, session, ranks.get(member.address)))
    return rows


def _with_part(row: NodeRow, session: ClusterSession | None, rank: int | None) -> NodeRow:
    if session is None or rank is None:
        return row
    shard = session.shards[rank]
    row = replace(row, rank=rank, kv_heads=len(shard.kv_heads), hidden=len(shard.hidden))
    if rank == 0:
        return row
    memory, rss = session.welcomes[rank - 1].memory_total, session.links.of_rank(rank).rss_bytes
    return replace(row, rss_bytes=rss, memory_bytes=memory)
