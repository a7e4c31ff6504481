"""What ranks exchange for a token, as the plain TCP program in C (raw_tcp.c) is told it, and the
times that it prints. Starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.mesh.sync_type import SyncType, make_codec
from cluster.planning.syncs import exchanged
from dllama.config import ModelConfig
from dllama.models import FAMILIES
from dllama.runtime.executor import least_rows

PORT = 9_970
N_RANKS = 2


@dataclass(frozen=True, slots=True)
class Exchanges:
    """What a rank of two sends, and is sent, for one step of `n_rows` tokens."""

    sync_types: tuple[str, ...]  # those that are as large
    n_rows: int
    n_bytes: int  # of one exchange, each way, all hops together
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
    """Returns the exchanges of a decoded token: those of its layers, and one for the best logits.
    What is shorter than a row, that one among them, is counted as long as the others."""
    return FAMILIES[config.arch].sums_per_layer * config.n_layers + 1


def n_long_exchanges(config: ModelConfig) -> int:
    """Returns the exchanges of a prompt that have all of its rows: one of each half layer but the
    last, which is computed for the wanted rows alone."""
    return len(FAMILIES[config.arch].halves) * config.n_layers - 1


def exchanges_of(
    config: ModelConfig,
    sync_types: Sequence[str],
    row_counts: Sequence[int],
    *,
    normed_quants: bool,
) -> list[Exchanges]:
    """Returns the exchanges of a step of so many rows, each size once. `normed_quants` is what
    reads_normed_quants (dllama/sharding/units.py) says of the model: its normed rows travel
    quantized."""
    by_size: dict[tuple[int, int], tuple[str, ...]] = {}
    for name in sync_types:
        for n_rows in row_counts:
            size = n_rows, _step_bytes(config, n_rows, name, normed_quants=normed_quants)
            by_size[size] = (*by_size.get(size, ()), name)
    return [
        Exchanges(
            names, n_rows, n_bytes, n_exchanges(config) if n_rows == 1 else n_long_exchanges(config)
        )
        for (n_rows, n_bytes), names in by_size.items()
    ]


def _step_bytes(config: ModelConfig, n_rows: int, sync_type: str, *, normed_quants: bool) -> int:
    """Returns the bytes that a rank sends for one sum of a step: of a long one half of the addends,
    and then half of the rows."""
    least = least_rows(config)
    found = exchanged(config.dim, n_rows, N_RANKS, SyncType(sync_type), normed_quants, least)
    return round(sum(found.hops))


def raw_tcp_words(
    n_bytes: int, n: int, n_tokens: int, *, work_us: int = 0, read_bytes: int = 0, looks: bool
) -> list[str]:
    """Returns the numbers of raw_tcp.c's command line, after the address and the port."""
    return [str(number) for number in (n_bytes, n, n_tokens, work_us, read_bytes, int(looks))]


def read_spent(printed: str) -> list[Spent]:
    """Returns the times of every token that raw_tcp.c has printed."""
    rows = [line.split() for line in printed.splitlines()]
    return [Spent(*(float(us) / 1e3 for us in row)) for row in rows]
