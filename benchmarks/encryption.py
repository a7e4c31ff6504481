"""What encryption costs a token: the same cluster of two nodes with and without, in turn.

    python -m benchmarks.encryption --model .cache/bench/1b-q4_0.gguf --tests tg64,pp128
    python -m benchmarks.encryption --plain 10.0.0.2:9998 --encrypted 10.0.0.2:10098

Without addresses, both workers are started on this machine and memory is not shared, so that
everything goes by TCP over loopback. Workers elsewhere are started by hand, the plain one with
--no-encrypt. Each round measures both; the ratio of each round is encrypted to plain.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from benchmarks.names import parse_test
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.security.settings import Security
from cluster.sockets import Address, parse_address
from dllama.bench import Bench, Test
from dllama.cli.flags.arguments import DEFAULT_MODEL, comma_list
from dllama.formats import open_model
from dllama.host.child_python import child_command, child_environment
from dllama.runtime.rank import RankModel
from dllama.weight_source import WeightSource

STEP_TOKENS = 256
PORTS = {False: 19_998, True: 20_098}  # of the workers that are started here, plain and encrypted


@contextmanager
def local_worker(encrypts: bool, threads: int, home: str) -> Iterator[Address]:
    """Runs a worker on this machine."""
    port = PORTS[encrypts]
    command = [*child_command("dllama"), "worker", "--host", "127.0.0.1", "--port", str(port)]
    flags = ["--threads", str(threads), "--cache-gb", "0", "--log-level", "warning"]
    environment = child_environment() | {
        "DLLAMA_HOME": home,
        "DLLAMA_ENCRYPT_LOOPBACK": str(int(encrypts)),
    }
    process = subprocess.Popen([*command, *flags], env=environment)
    try:
        yield Address("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait()


def open_runner(
    source: WeightSource, worker: Address, encrypts: bool, threads: int, home: str, n_pages: int
) -> ClusterRunner:
    """Returns a cluster of this process and one worker."""
    security = Security(encrypts, encrypts_loopback=encrypts, home=Path(home))
    config = ClusterConfig(
        [worker], n_pages, STEP_TOKENS, threads, security=security, hello_timeout_s=20.0
    )
    runner = ClusterRunner(source, config, RankModel.load)
    try:
        runner.start()
    except BaseException:
        runner.close()
        raise
    return runner


def show(test: Test, speeds: dict[bool, list[float]]) -> None:
    """Prints the medians and the ratios of one test."""
    pairs = zip(speeds[True], speeds[False], strict=True)
    ratios = sorted(encrypted / plain for encrypted, plain in pairs)
    plain, encrypted = (statistics.median(speeds[each]) for each in (False, True))
    print(
        f"{test.name:12} plain {plain:8.2f}  encrypted {encrypted:8.2f} tokens/s  "
        f"{1e3 / encrypted - 1e3 / plain:+.3f} ms a token  "
        f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("-m", "--model", default=str(DEFAULT_MODEL))
    parser.add_argument("--tests", type=comma_list, default=("tg64", "pp128"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--plain", type=parse_address, help="a worker with --no-encrypt")
    parser.add_argument("--encrypted", type=parse_address, help="a worker without it")
    args = parser.parse_args()
    os.environ["DLLAMA_SHARED_MEMORY"] = "0"
    tests = [parse_test(name) for name in args.tests]
    named = {False: args.plain, True: args.encrypted}
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        source = stack.enter_context(closing(open_model(args.model)))
        runners = {}
        for encrypts, address in named.items():
            if address is None:
                worker = local_worker(encrypts, args.threads, home)
                address = stack.enter_context(worker)
            n_pages = max(test.n_pages for test in tests) + 1
            runner = open_runner(source, address, encrypts, args.threads, home, n_pages)
            runners[encrypts] = stack.enter_context(closing(runner))
        benches = {each: Bench(r, max_step_tokens=STEP_TOKENS) for each, r in runners.items()}
        for test in tests:
            speeds: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(args.rounds):
                for encrypts, bench in benches.items():
                    speeds[encrypts].append(bench.measure(test, 1).tokens_per_s)
            show(test, speeds)


if __name__ == "__main__":
    main()
