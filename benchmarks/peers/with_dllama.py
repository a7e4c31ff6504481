"""dllama as a peer of a comparison: reads test names, answers with tokens per second.

One process a model and thread count: `python -m benchmarks.peers.with_dllama MODEL THREADS
[WORKERS]`; then a line such as `pp512`, `tg64`, `tg64@d4096` or `tg32xb16` on stdin, a JSON line
on stdout.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing

from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve
from dllama.bench import Bench
from dllama.cli.build import build_runner
from dllama.cli.flags.settings import EngineSettings

STEP_TOKENS = 512


def main() -> int:
    model, threads, *workers = sys.argv[1:]
    settings = EngineSettings(
        model=model, threads=int(threads), max_step_tokens=STEP_TOKENS, max_batch=32,
        workers=tuple(workers),
    )  # fmt: skip
    with ExitStack() as stack:

        def load(pages: int) -> Ready:
            runner = stack.enter_context(
                closing(build_runner(settings, lambda share, detail: None, pages))
            )
            bench = Bench(runner, max_step_tokens=STEP_TOKENS)
            return Ready("dllama", lambda name: bench.measure(parse_test(name), 1).to_json())

        serve(load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
