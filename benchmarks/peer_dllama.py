"""dllama as a peer of a comparison: reads test names, answers with tokens per second.

One process a model and thread count. `python -m benchmarks.peer_dllama MODEL THREADS [WORKERS]`;
then a line such as `pp512`, `tg64`, `tg64@d4096` or `tg32xb16` on stdin, a JSON line on stdout.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from benchmarks.names import parse_test
from dllama.bench import Bench
from dllama.cli.build import build_runner
from dllama.cli.settings import EngineSettings

STEP_TOKENS = 512


def main() -> int:
    model, threads, *workers = sys.argv[1:]
    settings = EngineSettings(
        model=model, threads=int(threads), max_step_tokens=STEP_TOKENS, max_batch=32,
        workers=tuple(workers),
    )  # fmt: skip
    started = time.perf_counter()
    pages = int(json.loads(sys.stdin.readline())["pages"])
    runner = build_runner(settings, lambda share, detail: None, pages)
    bench = Bench(runner, max_step_tokens=STEP_TOKENS)
    load_s = time.perf_counter() - started
    print(json.dumps({"load_s": load_s, "version": "dllama"}), flush=True)
    try:
        for line in sys.stdin:
            result = bench.measure(parse_test(line.strip()), 1)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps({**result.to_json(), "peak_bytes": peak}), flush=True)
    finally:
        runner.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
