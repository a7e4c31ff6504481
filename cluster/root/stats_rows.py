"""The rows of `workers` in GET /stats."""

from __future__ import annotations

from cluster.wire.messages import RankStats
from dllama.sharding.plan import Shard


def stats_row(
    stats: RankStats | None, shard: Shard, *, host: str, isa: str, threads: int, rss_bytes: int
) -> dict[str, object]:
    """One rank's row; times are per token over the last steps that only decoded, zero where it has
    not said. `prefill_tokens_per_s` is over the last steps that read prompts."""
    row: dict[str, object] = {"rank": shard.rank, "host": host, "isa": isa, "threads": threads}
    row.update(_rates(stats))
    row["rss_bytes"] = rss_bytes
    row["shard"] = {"kv_heads": len(shard.kv_heads), "hidden": len(shard.hidden)}
    return row


def _rates(stats: RankStats | None) -> dict[str, object]:
    if stats is None:
        stats = RankStats(*[0] * 12)
    tokens_ms = 1e6 * max(stats.n_tokens, 1)
    weights_read = stats.weights_bytes * stats.n_steps
    return {
        "tokens_per_s": round(stats.n_tokens / max(stats.elapsed_ns, 1) * 1e9, 2),
        "prefill_tokens_per_s": round(stats.prefill_tokens / max(stats.prefill_ns, 1) * 1e9, 2),
        "compute_ms": round(stats.compute_ns / tokens_ms, 3),
        "wait_ms": round(stats.wait_ns / tokens_ms, 3),
        "network_ms": round(stats.network_ns / tokens_ms, 3),
        "weights_gb_per_s": round(weights_read / max(stats.compute_ns, 1), 2),
        "sent_bytes": stats.sent_bytes,
        "received_bytes": stats.received_bytes,
    }
