"""The long form: python -m tests.cluster.fuzz --frames 1000000"""

from __future__ import annotations

import argparse
import sys

from tests.cluster.fuzz.table import failures, lines, quiet, run


def main() -> int:
    """Prints the table; returns 1 where anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.fuzz")
    parser.add_argument("--frames", type=int, default=1_000_000, help="how many, in all")
    parser.add_argument("--seed", type=int, default=1, help="another one sends other frames")
    parser.add_argument(
        "--limit", type=float, default=90.0, help="seconds for each socket, at most"
    )
    options = parser.parse_args()
    rows = []
    with quiet():
        for row in run(options.frames, options.seed, options.limit):
            print(f"{row.socket}: {row.n_frames:,} frames", file=sys.stderr, flush=True)
            rows.append(row)
    print(*lines(rows), sep="\n")
    print(*failures(rows), sep="\n", file=sys.stderr)
    return 1 if failures(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
