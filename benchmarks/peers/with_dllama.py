"""dllama as a peer of a comparison: reads test names, answers with tokens per second.

One process a model and thread count: `python -m benchmarks.peers.with_dllama MODEL THREADS
[WORKERS] [--sync-type X] [--no-encrypt]`; then a line such as `pp512`, `tg64`, `tg64@d4096` or
`tg32xb16` on stdin, a JSON line on stdout: `dllama bench --json`'s object, and each rank's row of
GET /stats as `ranks`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing

from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve
from dllama.bench import Bench
from dllama.cli.build import build_runner
from dllama.cli.flags.settings import EngineSettings

STEP_TOKENS = 512


def read_settings() -> EngineSettings:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    parser.add_argument("workers", nargs="*")
    parser.add_argument("--sync-type", default="exact")
    parser.add_argument("--no-encrypt", action="store_true")
    args = parser.parse_args()
    return EngineSettings(
        model=args.model, threads=args.threads, max_step_tokens=STEP_TOKENS, max_batch=32,
        workers=tuple(args.workers), shares=(1.0,) * (1 + len(args.workers)),
        sync_type=args.sync_type, encrypts=not args.no_encrypt,
    )  # fmt: skip


def main() -> int:
    settings = read_settings()
    with ExitStack() as stack:

        def load(pages: int) -> Ready:
            runner = stack.enter_context(
                closing(build_runner(settings, lambda share, detail: None, pages))
            )
            bench = Bench(runner, max_step_tokens=STEP_TOKENS)

            def measure(name: str) -> Mapping[str, object]:
                found = bench.measure(parse_test(name), 1).to_json()
                return {**found, "ranks": runner.stats()}

            return Ready("dllama", measure)

        serve(load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
