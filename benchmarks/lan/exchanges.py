"""What ranks exchange for a token, as the plain TCP program in C (raw_tcp.c) is told it, and the
times that it prints. Starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.mesh.sync_type import SyncType, make_codec
from dllama.config import ModelConfig

PORT = 9_970


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What a rank of two sends, and is sent, for one step of `n_rows` tokens."""

    sync_types: tuple[str, ...]  # those that are as large
    n_rows: int
    n_bytes: int  # of one exchange, each way
    n: int


class Spent(NamedTuple):
    """The times of a token, told apart as a rank's are (cluster/mesh/collective.py)."""

    compute_ms: float
    wait_ms: float
    network_ms: float

    @property
    def lost_ms(self) -> float:
        """The time that exchanging takes."""
        return self.wait_ms + self.network_ms


def row_bytes(config: ModelConfig, sync_type: str) -> int:
    """Returns the bytes of one token's row in an exchange."""
    return make_codec(SyncType(sync_type)).row_bytes(config.dim)


def n_exchanges(config: ModelConfig) -> int:
    """Returns the exchanges of a step: two a layer, and one for the best logits, which is shorter
    and counted as long as the others."""
    return 2 * config.n_layers + 1


def exchanges_of(
    config: ModelConfig, sync_types: Sequence[str], row_counts: Sequence[int]
) -> list[Exchanges]:
    """Returns the exchanges of a step of so many rows, each size once."""
    by_size: dict[int, tuple[str, ...]] = {}
    for name in sync_types:
        n_bytes = row_bytes(config, name)
        by_size[n_bytes] = (*by_size.get(n_bytes, ()), name)
    return [
        Exchanges(names, n, n * n_bytes, n_exchanges(config))
        for n_bytes, names in by_size.items()
        for n in row_counts
    ]


def raw_tcp_words(
    n_bytes: int, n: int, n_tokens: int, *, work_us: int = 0, read_bytes: int = 0, looks: bool
) -> list[str]:
    """Returns the numbers of raw_tcp.c's command line, after the address and the port."""
    return [str(number) for number in (n_bytes, n, n_tokens, work_us, read_bytes, int(looks))]


def read_spent(printed: str) -> list[Spent]:
    """Returns the times of every token that raw_tcp.c has printed."""
    rows = [line.split() for line in printed.splitlines()]
    return [Spent(*(float(us) / 1e3 for us in row)) for row in rows]
