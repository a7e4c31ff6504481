"""How much processor time commands take to start, and where that of a first start goes.

    python -m benchmarks.start_times            # user and system time of each command, medians
    python -m benchmarks.start_times --first    # kernels compiled for one answer, empty cache

Processor time, so that other work on the machine counts little; wall-clock time is not told. The
commands are run from the tree that this module is imported from, with warm caches of Python's own.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

from dllama.cli.flags.arguments import DEFAULT_MODEL, positive
from dllama.host.child_python import HOUSE, child_environment

CODE = "import sys; from dllama.cli.main import main; sys.exit(main())"
ANSWER = ("-m", str(DEFAULT_MODEL), "-p", "hi", "--temperature", "0", "-n", "16")
COMMANDS: dict[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "--version": ("--version",),
    "list": ("list",),
    "config": ("config",),
    "root --help": ("root", "--help"),
    "-m MODEL -p hi": ANSWER,
    "completion of `dllama run --kv-ty`": (),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", metavar="N", type=positive, default=10, help="of each command")
    parser.add_argument("--first", action="store_true", help="a first start, kernel by kernel")
    return parser


def processor_s(words: tuple[str, ...]) -> float:
    """Returns the user and system time of a command, with that of its children; no words: an answer
    to a shell."""
    environment = child_environment()
    if not words:
        line = "dllama run --kv-ty"
        environment |= {
            "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "COMP_LINE": line,
            "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": os.devnull,
        }  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=HOUSE, env=environment, check=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def tell_commands(runs: int) -> None:
    """Prints the median of each command, and the spread; commands take turns."""
    times: dict[str, list[float]] = defaultdict(list)
    for words in COMMANDS.values():
        processor_s(words)  # what Python and we keep on disk is there afterwards
    for _ in range(runs):
        for name, words in COMMANDS.items():
            times[name].append(processor_s(words))
    for name, found in times.items():
        print(
            f"{name:36} {statistics.median(found):6.3f} s  ({min(found):.3f} to {max(found):.3f})"
        )


def tell_first_start() -> None:
    """Answers with an empty cache in this process, and prints the processor time of each kernel
    that is compiled for it."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLLAMA_CACHE"] = folder
        from kernels.kernel import Kernel

        kept = Kernel._compile
        rows: list[tuple[float, int, str]] = []

        def timed(kernel: Kernel, kinds: Any) -> Any:
            since_s = time.process_time()
            code = kept(kernel, kinds)
            rows.append((time.process_time() - since_s, len(code.object_code), kernel.name))
            return code

        Kernel._compile = timed  # type: ignore[method-assign]
        from dllama.cli.main import start

        start(list(ANSWER))
    whole_s = time.process_time() - began_s
    for seconds, n_bytes, name in sorted(rows, reverse=True):
        print(f"{seconds:6.2f} s  {n_bytes / 1e3:7.1f} kB  {name}", file=sys.stderr)
    compiled_s = sum(row[0] for row in rows)
    print(f"{compiled_s:6.2f} s  {len(rows)} kernels, of {whole_s:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    found = make_parser().parse_args()
    if found.first:
        tell_first_start()
    else:
        tell_commands(found.runs)
