"""A real server under load: streaming clients through HTTP, beside `dllama bench` on its own.

    python -m benchmarks.load_api --threads 2
    python -m benchmarks.load_api --model 1b.gguf --clients 16 --tokens 64 --json load.json
    python -m benchmarks.load_api --model 1b.gguf --llama-server ~/llama.cpp/llama-server

Three scenarios, all on loopback. load: all clients at once with answers of a fixed length; the
ratio compares their tokens per second, while all of them stream, with what `dllama bench` decodes
at the same batch and depth, in turn: bench, load, bench, load. intrusion: a long prompt arrives
while the clients stream. turn: the 20th turn of a long chat with and without `cache_prompt`. Long
prompts are cut to the model's context.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.compare import ROOT, free_port, local_workers, machine_facts
from benchmarks.load.clients import (
    Clients,
    Load,
    clients_of,
    play_intrusion,
    play_load,
    play_turn,
)
from benchmarks.load.figures import Json, median_row
from benchmarks.load.server import LoadError, Room, llama_server_command, root_command, serving
from benchmarks.load.tables import show
from dllama.cli.flags.arguments import DEFAULT_MODEL, default_threads, positive
from dllama.formats import open_model

SCENARIOS = ("load", "intrusion", "turn")
CHAT_MARGIN = 256  # tokens of a chat's template, its last words and the answer to them
ROWS_EXPECTED = 4  # rows of a long prompt in a step, at least; else its scenario is too long
BENCH_S = 600.0
WIDTH = 120  # of what is printed to a file
DLLAMA = "import sys; from dllama.cli.main import main; sys.exit(main())"  # as its script does


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of the measurement, with all lengths cut to the model's context."""

    model: str
    threads: int
    n_workers: int
    load: Load
    n_long: int
    n_chat: int
    context: int
    n_repeats: int
    scenarios: tuple[str, ...]

    @property
    def intrusion_room(self) -> int:
        """Tokens that a client may have while the long prompt is computed."""
        wanted = 2 * self.load.n_tokens + self.n_long // ROWS_EXPECTED
        return min(wanted, self.context - self.load.n_prompt)

    @property
    def server_room(self) -> Room:
        """One sequence more than clients: the long prompt must not wait for a place."""
        each = self.load.n_prompt + max(
            self.load.n_tokens, self.intrusion_room if "intrusion" in self.scenarios else 0
        )
        longest = max(self.n_long, self.n_chat) + CHAT_MARGIN
        kv_tokens = (each + 32) * self.load.clients + 2 * longest  # a chat, and it once more
        return Room(self.threads, self.load.clients + 1, self.context, kv_tokens)


@dataclass(slots=True)
class Findings:
    """The results of one kind of server."""

    rounds: list[Json] = field(default_factory=list)
    scenarios: dict[str, Json] = field(default_factory=dict)

    def to_json(self) -> Json:
        load = {"load": median_row(self.rounds), "rounds": self.rounds} if self.rounds else {}
        return {**load, **self.scenarios}

    @property
    def decode_rate(self) -> float:
        return statistics.median(float(str(row["decode_tokens_per_s"])) for row in self.rounds)


def make_plan(args: argparse.Namespace) -> Plan:
    """Raises LoadError where the model's context is too short for the clients' answers."""
    source = open_model(args.model)
    config = source.config
    source.close()
    longest = max(args.long_tokens, args.chat_tokens) + CHAT_MARGIN
    context = min(config.max_seq_len, max(longest, args.prompt_tokens + 2 * args.tokens))
    if args.prompt_tokens + args.tokens > context:
        raise LoadError(
            f"{args.prompt_tokens} tokens of prompt and {args.tokens} of answer are more than the "
            f"model's context of {context}; ask for fewer with --tokens or --prompt-tokens"
        )
    fits = max(1, context - CHAT_MARGIN)
    load = Load(args.clients, args.prompt_tokens, args.tokens, config.vocab_size, args.temperature)
    return Plan(
        model=args.model, threads=args.threads, n_workers=args.workers, load=load,
        n_long=min(args.long_tokens, fits), n_chat=min(args.chat_tokens, fits),
        context=context, n_repeats=args.turn_repeats, scenarios=tuple(args.scenarios.split(",")),
    )  # fmt: skip


def bench(plan: Plan) -> float:
    """Tokens per second of `dllama bench` at the load's batch, depth and length."""
    load = plan.load
    command = [
        sys.executable, "-c", DLLAMA, "bench", "--model", plan.model, "--json",
        "--threads", str(plan.threads), "-p", "0", "-n", str(load.n_tokens),
        "-d", str(load.n_prompt), "-b", str(load.clients), "-r", "1",
    ]  # fmt: skip
    with local_workers(plan.n_workers, plan.threads) as addresses:
        if addresses:
            command += ["--workers", ",".join(addresses), "--shares", "equal"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BENCH_S)
    if done.returncode != 0:
        raise LoadError(f"dllama bench failed: {done.stderr.strip()[-1000:]!r}")
    return float(json.loads(done.stdout)[0]["tokens_per_s"])


def measure_dllama(plan: Plan, findings: Findings, played: Sequence[str], seed: int) -> None:
    """A round of dllama-root, started and ended here."""
    port = free_port()
    with ExitStack() as stack:
        addresses = stack.enter_context(local_workers(plan.n_workers, plan.threads))
        command = root_command(plan.model, plan.server_room, port, addresses)
        url = stack.enter_context(serving("dllama-root", command, port))
        asyncio.run(play(url, plan, findings, played, seed))


def measure_llama_server(
    binary: str, plan: Plan, findings: Findings, played: Sequence[str], seed: int
) -> None:
    """The same round of llama-server."""
    port = free_port()
    command = llama_server_command(binary, plan.model, plan.server_room, port)
    with serving("llama-server", command, port) as url:
        asyncio.run(play(url, plan, findings, played, seed))


async def play(url: str, plan: Plan, findings: Findings, played: Sequence[str], seed: int) -> None:
    """The scenarios, on a server that has been warmed up."""
    load = plan.load
    scenarios: dict[str, Callable[[Clients], Coroutine[Any, Any, Json]]] = {
        "intrusion": lambda clients: play_intrusion(
            clients, load, plan.n_long, seed + 300, plan.intrusion_room
        ),
        "turn": lambda clients: play_turn(clients, load, plan.n_chat, plan.n_repeats),
    }
    async with clients_of(url) as clients:
        await clients.stream("/v1/completions", load.body(seed + 900, n_tokens=8))
        for name in played:
            if name == "load":
                findings.rounds.append(row := await play_load(clients, load, seed + 100))
                tell(f"{load.clients} clients: {row['decode_tokens_per_s']:.1f} tokens/s")
            else:
                findings.scenarios[name] = row = await scenarios[name](clients)
                tell(f"{name}: {row}")


def measure(plan: Plan, rounds: int, llama_server: str | None) -> Json:
    """Bench and servers in turn; the scenarios beside `load` are played in the last round."""
    ours, theirs = Findings(), Findings()
    benched: list[float] = []
    has_load = "load" in plan.scenarios
    for i in range(rounds if has_load else 1):
        is_last = i == rounds - 1 or not has_load
        played = plan.scenarios if is_last else ("load",)
        if has_load:
            benched.append(bench(plan))
            tell(f"dllama bench: {benched[-1]:.1f} tokens/s")
        measure_dllama(plan, ours, played, 1000 * i)
        if llama_server is not None:
            measure_llama_server(llama_server, plan, theirs, played, 1000 * i)
    found: Json = {
        "model": Path(plan.model).name, "threads": plan.threads, "workers": plan.n_workers,
        "dllama": ours.to_json(),
    }  # fmt: skip
    if has_load:
        found["bench_samples"] = benched
        found["bench_tokens_per_s"] = statistics.median(benched)
        found["ratio_to_bench"] = ours.decode_rate / statistics.median(benched)
    if llama_server is not None:
        found["llama-server"] = theirs.to_json()
        if has_load:
            found["ratio_to_llama_server"] = ours.decode_rate / theirs.decode_rate
    return found


def tell(news: str) -> None:
    """Prints a line on stderr, with the time of day: a load test is long, and may be
    interrupted."""
    print(f"{time.strftime('%H:%M:%S')} {news}", file=sys.stderr, flush=True)


def scenario_list(text: str) -> str:
    """An argparse type: names of SCENARIOS between commas, in the order they are played."""
    names = [name for name in SCENARIOS if name in text.split(",")]
    if unknown := set(text.split(",")) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} is no scenario; there are {', '.join(SCENARIOS)}"
        )
    return ",".join(names)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", default=str(DEFAULT_MODEL), metavar="FILE")
    parser.add_argument("-t", "--threads", type=positive, default=default_threads(), metavar="N")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="workers on loopback")
    parser.add_argument("--clients", type=positive, default=16, metavar="N")
    parser.add_argument("--prompt-tokens", type=positive, default=32, metavar="N")
    parser.add_argument("--tokens", type=positive, default=128, metavar="N", help="of each answer")
    parser.add_argument("--long-tokens", type=positive, default=4000, metavar="N")
    parser.add_argument("--chat-tokens", type=positive, default=4000, metavar="N")
    parser.add_argument("--temperature", type=float, help="(default: the server's own)")
    parser.add_argument("--rounds", type=positive, default=2, metavar="N")
    parser.add_argument("--turn-repeats", type=positive, default=3, metavar="N")
    parser.add_argument("--scenarios", type=scenario_list, default=",".join(SCENARIOS))
    parser.add_argument("--llama-server", metavar="PATH", help="a binary to compare with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        found = {"machine": machine_facts(), **measure(make_plan(args), args.rounds,
                                                       args.llama_server)}  # fmt: skip
    except LoadError as error:
        Console(stderr=True).print(f"load_api: {error}", markup=False)
        return 1
    show(console, found)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
