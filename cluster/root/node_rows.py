"""The figures of a cluster's nodes, as GET /stats and GET /cluster/nodes show them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

from cluster.planning.findings import RankTimes, findings
from cluster.planning.predict import Prediction
from cluster.root.members import Members, State
from cluster.root.session import ClusterSession
from dllama.host.container import total_memory
from dllama.nodes import MAX_SENTENCE, NodeRow
from dllama.runtime.meter import RankFigures, RankIdentity, rss_bytes, stats_row
from kernels.cpu import isa


def worker_rows(
    session: ClusterSession, threads: int, predicted: Prediction | None
) -> list[dict[str, object]]:
    """Returns `workers` of GET /stats, a row for each rank. `threads` are the root's own."""
    figures = session.rank_figures()
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
        stats_row(identity, figures_of_rank, n_bytes)
        for identity, figures_of_rank, n_bytes in zip(identities, figures, rss, strict=True)
    ]
    found = _findings(["the root", *(f"worker {host}" for host in hosts[1:])], figures, predicted)
    for row, shard, finding in zip(rows, session.shards, found, strict=True):
        row["weights"] = session.weights.row(shard.rank)
        row["predicted"] = None if predicted is None else _predicted(predicted, shard.rank)
        row["finding"] = finding
    return rows


def _findings(
    labels: Sequence[str], figures: Sequence[RankFigures], predicted: Prediction | None
) -> list[str]:
    """Returns a sentence for each rank: what it costs, where it costs something. A prediction is of
    one sequence."""
    times = [
        RankTimes(label, each.compute_ns / n, each.wait_ns / n, each.network_ns / n)
        for label, each in zip(labels, figures, strict=True)
        for n in [1e6 * max(each.n_tokens, 1)]
    ]
    is_single = figures[0].n_tokens == figures[0].n_steps
    return findings(times, predicted if is_single else None)


def _predicted(predicted: Prediction, rank: int) -> dict[str, float]:
    """Returns what was predicted of one sequence after 512 tokens, and of a prompt of as many."""
    return {
        "tokens_per_s": round(predicted.decode_per_s, 2),
        "prefill_tokens_per_s": round(predicted.prompt_per_s, 2),
        "compute_ms": round(predicted.decode.ranks[rank].total * 1e3, 3),
        "network_ms": round(predicted.decode.network * 1e3, 3),
    }


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
