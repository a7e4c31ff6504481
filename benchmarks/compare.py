"""dllama beside others: the same file, the same threads, in turn, as ratios.

    python -m benchmarks.compare --types Q4_0,Q6_K --tests pp512,tg64 --threads 1,2
    python -m benchmarks.compare --peer-python ~/llama/bin/python ...   # with llama.cpp
    python -m benchmarks.compare --nodes 2 --threads 1                  # two nodes and one
    python -m benchmarks.compare --distributed-llama ~/dl/dllama [--nodes 2 --threads 1]

Models are random weights of real shapes, written to .cache/bench once. Every test runs A B A B;
the table has medians, the spread, and the ratio. Results go to benchmarks/results as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.bandwidth import int8_gop_per_s, memory_gb_per_s
from benchmarks.compare_tables import cost_table, speed_table
from benchmarks.ending import wait_or_kill
from benchmarks.names import parse_test
from dllama.cli.flags.arguments import comma_list
from dllama.formats import open_model
from kernels.cpu import cpu_name, isa

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / ".cache" / "bench"
RESULTS = Path(__file__).parent / "results"
WIDTH = 140
END_S = 30.0  # for a process that was told to end
TESTS = "pp128,pp512,pp4096,tg64,tg32@d4096,tg32xb4,tg32xb16,tg32xb32"
TYPES = ("Q4_0", "Q4_K", "Q6_K", "Q8_0", "F16", "BF16")


class Peer:
    """A measuring process: test names in, JSON lines out."""

    def __init__(self, name: str, command: list[str], pages: int) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.hello = self._ask(json.dumps({"pages": pages}))
        except BaseException:
            self.close()
            raise

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended; its own words are above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def measure(self, test: str) -> dict[str, Any]:
        return self._ask(test)

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        assert self._process.stdout is not None
        wait_or_kill(self._process, END_S)
        self._process.stdout.close()


def model_file(shape: str, qtype: str, *, is_m: bool = False) -> Path:
    """A random model, written once; a .m file with its .t if distributed-llama is to read it."""
    path = MODELS / f"{shape}-{qtype}.{'m' if is_m else 'gguf'}"
    if not path.exists():
        MODELS.mkdir(parents=True, exist_ok=True)
        writer = "benchmarks.random_m_model" if is_m else "benchmarks.random_model"
        command = [sys.executable, "-m", writer, shape, str(path), "--type", qtype]
        subprocess.run(command, cwd=ROOT, check=True)
    return path


def multiplied_weights(path: Path) -> dict[str, int]:
    """Returns the number of weights that a token of a prompt is multiplied with in the layers, and
    in the head."""
    with closing(open_model(path)) as source:
        sizes = {name: t.rows * t.cols for name, t in source.tensors.items() if t.rows > 1}
    embed = sizes.pop("embed")
    head = sizes.pop("wcls", embed)
    return {"body": sum(sizes.values()), "head": head}


def weight_bytes(path: Path) -> int:
    """Returns the bytes of weights that a decoded token reads: of all matrices but an embedding
    table that is no head."""
    with closing(open_model(path)) as source:
        sizes = {name: t.n_bytes for name, t in source.tensors.items() if t.rows > 1}
    if "wcls" in sizes:
        del sizes["embed"]
    return sum(sizes.values())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def local_workers(n: int, command: Callable[[int], list[str]]) -> Iterator[list[str]]:
    """n workers on loopback, each started by `command(port)`: their addresses."""
    addresses, processes = [], []
    try:
        for _ in range(n):
            port = free_port()
            addresses.append(f"127.0.0.1:{port}")
            processes.append(
                subprocess.Popen(
                    command(port), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        time.sleep(1.5 if n else 0)
        yield addresses
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            wait_or_kill(process, END_S)


def our_worker(threads: int) -> Callable[[int], list[str]]:
    return lambda port: [
        sys.executable, "-m", "dllama.cli.commands.worker", "--host", "127.0.0.1",
        "--port", str(port), "--threads", str(threads), "--log-level", "warning",
    ]  # fmt: skip


def their_worker(binary: str, threads: int) -> Callable[[int], list[str]]:
    return lambda port: [
        binary, "worker", "--host", "127.0.0.1", "--port", str(port), "--nthreads", str(threads)
    ]  # fmt: skip


def run_case(
    path: Path, threads: int, tests: list[str], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """All tests of one model and thread count, the peers in turn."""
    pages = max(parse_test(t).n_pages for t in tests)
    ours = [sys.executable, "-m", "benchmarks.peers.with_dllama", str(path), str(threads)]
    with ExitStack() as stack:
        workers = stack.enter_context(local_workers(args.nodes - 1, our_worker(threads)))
        peers = [Peer("dllama", [*ours, *workers], pages)]
        stack.callback(peers[0].close)
        if other := _other_peer(path, threads, ours, args, stack):
            peers.append(Peer(*other, pages))
            stack.callback(peers[1].close)
        found = (run_test(peers, path.stem, threads, test, args.repeats) for test in tests)
        return [row for row in found if row is not None]


def _other_peer(
    path: Path, threads: int, ours: list[str], args: argparse.Namespace, stack: ExitStack
) -> tuple[str, list[str]] | None:
    """Returns the name of the other program and the command that starts it."""
    if args.distributed_llama:
        binary = str(Path(args.distributed_llama).resolve())
        workers = local_workers(args.nodes - 1, their_worker(binary, threads))
        module = "benchmarks.peers.with_distributed_llama"
        command = [sys.executable, "-m", module, binary, str(path), str(threads)]
        return "distributed-llama", [*command, *stack.enter_context(workers)]
    if args.nodes > 1:  # the same threads in one node
        return "one node", [*ours[:-1], str(threads * args.nodes)]
    if args.peer_python:
        module = "benchmarks.peers.with_llama_cpp"
        return "llama.cpp", [args.peer_python, "-m", module, str(path.resolve()), str(threads)]
    return None


def run_test(
    peers: list[Peer], model: str, threads: int, test: str, repeats: int
) -> dict[str, Any] | None:
    """One row: A B A B ..., medians and the ratio pair by pair; None for a test that the other
    cannot run."""
    samples: dict[str, list[dict[str, Any]]] = {p.name: [] for p in peers}
    for _ in range(repeats):
        for peer in peers:
            samples[peer.name].append(peer.measure(test))
            if samples[peer.name][-1]["tokens_per_s"] is None:
                return None
    row: dict[str, Any] = {"model": model, "threads": threads, "test": test}
    for peer in peers:
        speeds = [s["tokens_per_s"] for s in samples[peer.name]]
        row[peer.name] = {
            "median": statistics.median(speeds),
            "samples": speeds,
            "load_s": peer.hello["load_s"],
            "peak_bytes": samples[peer.name][-1]["peak_bytes"],
        }
    last = samples["dllama"][-1]
    for key in ("gb_per_s", "compute_ms", "wait_ms", "network_ms"):
        row[key] = statistics.median(s[key] for s in samples["dllama"])
    row["nodes"] = last["nodes"]
    if len(peers) > 1:
        a, b = (row[p.name]["samples"] for p in peers)
        row["ratio"] = statistics.median(x / y for x, y in zip(a, b, strict=True))
    return row


def machine() -> dict[str, Any]:
    """Returns the facts of the machine that was measured on, and its speed."""
    n = os.cpu_count() or 1
    return {
        **machine_facts(),
        "memory_gb_per_s": {str(t): round(memory_gb_per_s(t), 1) for t in sorted({1, n})},
        "int8_gop_per_s": {str(t): round(int8_gop_per_s(t)) for t in sorted({1, n})},
    }


def machine_facts() -> dict[str, Any]:
    """Returns the facts of the machine that was measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "processor": processor_name(),
        "kernel": platform.release(),
        "cpu": cpu_name(),
        "isa": isa(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }


def processor_name() -> str:
    """Returns what the processor calls itself; nothing where the system does not tell."""
    for line in _lines_of(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=comma_list, default=("llama-3.2-1b",))
    parser.add_argument("--types", type=comma_list, default=TYPES)
    parser.add_argument("--models", type=comma_list, default=(), help="GGUF files instead")
    parser.add_argument("--tests", type=comma_list, default=comma_list(TESTS))
    parser.add_argument("--threads", type=comma_list, default=("1", str(os.cpu_count() or 1)))
    parser.add_argument("--nodes", type=int, default=1, help="of ours, on loopback")
    parser.add_argument("-r", "--repeats", type=int, default=3)
    parser.add_argument("--peer-python", help="an interpreter that has llama-cpp-python")
    parser.add_argument("--distributed-llama", metavar="PROGRAM", help="its program, `dllama`")
    parser.add_argument("--json", type=Path, help="where to write (default: benchmarks/results)")
    args = parser.parse_args()
    is_m = bool(args.distributed_llama)
    types = ("Q4_0",) if is_m else args.types  # of its two types the one that is quantized
    files = [Path(m) for m in args.models] or [
        model_file(shape, qtype, is_m=is_m) for shape in args.shapes for qtype in types
    ]
    facts = machine()
    # To a file goes one table, as wide as it is.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(facts)
    rows: list[dict[str, Any]] = []
    for path in files:
        for threads in args.threads:
            weights = multiplied_weights(path)
            rows += [
                {**row, "weights": weights}
                for row in run_case(path, int(threads), list(args.tests), args)
            ]
            if console.is_terminal:
                console.print(speed_table(rows, facts))
    name = f"{facts['cpu']}-{facts['cores']}-{facts['date']}-{facts['commit']}-{args.nodes}n.json"
    out = args.json or RESULTS / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    if not console.is_terminal:
        console.print(speed_table(rows, facts))
    console.print(cost_table(rows))
    console.print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
