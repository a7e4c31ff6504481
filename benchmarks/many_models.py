"""A server of many models: what it costs to choose one, and whether all requests are answered.

    python -m benchmarks.many_models
    python -m benchmarks.many_models --requests 200 --models 5 --models-max 2

choice: one token of a model that is loaded, asked of a router that has two, each in turn, and of
a server of that model alone, in turn; the difference of the medians. crowd: many requests at once
over more models than may be loaded; how long it took, how many loads, and the memory before and
after.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import psutil

from benchmarks.compare import free_port
from dllama.cli.flags.arguments import DEFAULT_MODEL, positive
from dllama.host.child_python import child_environment

START_S = 120.0
ASK = {"prompt": "dllama", "max_tokens": 1, "temperature": 0}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", metavar="N", type=positive, default=200, help="of the choice")
    parser.add_argument("--requests", metavar="N", type=positive, default=200, help="of the crowd")
    parser.add_argument("--models", metavar="N", type=positive, default=5)
    parser.add_argument("--models-max", metavar="N", type=positive, default=2)
    return parser


@contextmanager
def started(*flags: str) -> Iterator[tuple[str, psutil.Process]]:
    """Starts a dllama-root; its URL and its process."""
    port = free_port()
    command = [sys.executable, "-m", "dllama", "root", "--port", str(port), *flags]
    process = subprocess.Popen(
        command, env=child_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(START_S)


async def until_ready(session: aiohttp.ClientSession, url: str) -> None:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        try:
            async with session.get(f"{url}/health") as reply:
                if reply.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the server at {url} is not ready")


async def ask(session: aiohttp.ClientSession, url: str, model: str) -> float:
    """Returns the seconds that a request takes. Raises where it is not answered."""
    began_s = time.perf_counter()
    async with session.post(f"{url}/v1/completions", json={"model": model, **ASK}) as reply:
        told = await reply.json()
        if reply.status != 200 or told["model"] != model:
            raise RuntimeError(f"{reply.status}: {told}")
    return time.perf_counter() - began_s


async def choice(router: str, alone: str, names: list[str], rounds: int) -> None:
    async with aiohttp.ClientSession() as session:
        for url in (router, alone):
            await until_ready(session, url)
        for name in names:
            await ask(session, router, name)
        took: dict[str, list[float]] = {"router": [], "alone": []}
        for i in range(rounds):
            took["router"].append(await ask(session, router, names[i % 2]))
            took["alone"].append(await ask(session, alone, names[0]))
    found = {name: 1e3 * statistics.median(times) for name, times in took.items()}
    more = found["router"] - found["alone"]
    print(
        f"choice: {found['router']:.2f} ms of a router, {found['alone']:.2f} ms of a server of one "
        f"model; {more:+.2f} ms (medians of {rounds})"
    )


def memory_of(process: psutil.Process) -> float:
    """Returns the GB that a server and its engines hold."""
    held = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in held if one.is_running()) / 1e9


async def crowd(url: str, process: psutil.Process, names: list[str], n_requests: int) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await until_ready(session, url)
        await ask(session, url, names[0])
        before, began_s = memory_of(process), time.perf_counter()
        asked = [names[i % len(names)] for i in range(n_requests)]
        took = await asyncio.gather(*(ask(session, url, name) for name in asked))
        seconds, after = time.perf_counter() - began_s, memory_of(process)
        async with session.get(f"{url}/metrics") as reply:
            loads = [line for line in (await reply.text()).splitlines() if "model_loads" in line]
    n_loads = sum(float(line.rpartition(" ")[2]) for line in loads if line[0] != "#")
    print(
        f"crowd: {n_requests} requests over {len(names)} models answered in {seconds:.1f} s with "
        f"{n_loads:.0f} loads; the slowest waited {max(took):.1f} s; memory {before:.2f} GB with "
        f"one model loaded before, {after:.2f} GB after"
    )


def main() -> int:
    args = make_parser().parse_args()
    names = [f"m{i}" for i in range(args.models)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in names:
            (folder / f"{name}.gguf").symlink_to(DEFAULT_MODEL)
        flags = ("--models-dir", str(folder), "--models-max", str(args.models_max), "-t", "1")
        router, process = stack.enter_context(started(*flags))
        with started("--model", str(folder / f"{names[0]}.gguf"), "-t", "1") as (alone, _):
            asyncio.run(choice(router, alone, names[:2], args.rounds))
        asyncio.run(crowd(router, process, names, args.requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
