"""Plain TCP in C as a peer of a comparison: a program that reads as much memory as a rank, sends as
many bytes over one connection, and does nothing else.

`python -m benchmarks.peers.with_plain_tcp PROGRAM HOST:PORT ROW_BYTES N_EXCHANGES READ_BYTES`:
benchmarks/lan/raw_tcp.c, compiled, which listens at HOST:PORT too; the bytes of a row that is
exchanged, the exchanges of a step, and the bytes of memory that either end reads for one. Same
protocol as with_dllama.py. Only decoding is reading: a prompt is answered with null.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.lan.exchanges import Spent, raw_tcp_words, read_spent
from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve

LONGEST_S = 600.0
N_UNCOUNTED = 2  # first tokens, as of dllama's times


def figures(steps: Sequence[Spent], batch: int) -> Mapping[str, object]:
    """Returns the tokens per second of steps of `batch` tokens, and a token's mean times."""
    spent = Spent(*(statistics.mean(column) / batch for column in zip(*steps, strict=True)))
    return {"tokens_per_s": 1e3 / sum(spent), **spent._asdict()}


def main() -> int:
    program, server, *numbers = sys.argv[1:]
    row_bytes, n_exchanges, read_bytes = map(int, numbers)

    def measure(name: str) -> Mapping[str, object]:
        test = parse_test(name)
        if not test.is_decode:
            return {"tokens_per_s": None}
        words = raw_tcp_words(
            test.batch * row_bytes, n_exchanges, test.n_tokens + N_UNCOUNTED,
            read_bytes=read_bytes, looks=True,
        )  # fmt: skip
        done = subprocess.run(
            [program, *server.split(":"), *words],
            check=True, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S,
        )  # fmt: skip
        return figures(read_spent(done.stdout)[N_UNCOUNTED:], test.batch)

    serve(lambda pages: Ready("plain TCP", measure))
    return 0


if __name__ == "__main__":
    sys.exit(main())
