"""Do two machines beat one? dllama and other programs over links between namespaces, in turn.

    sudo .venv/bin/python -m benchmarks.network
    sudo .venv/bin/python -m benchmarks.network --shapes llama-3.1-8b --rates 100,1000 --delays 0,2
    sudo .venv/bin/python -m benchmarks.network --distributed-llama DIR/dllama --llama-cpp DIR/bin

Machines are network namespaces, each with cores of its own and no memory shared; links have rates
(tc tbf), and delays by a process of ours. Root is needed. On each link all set-ups run in turn,
A B C A B C: one node with one core, one with the cores of all, dllama on all nodes with each of
--sync-types, encrypted and plain, then distributed-llama and llama.cpp's RPC where they are given,
and plain TCP in C between two ends that read as much memory as ranks.
Tables show medians of --rounds, and in brackets the median of the ratios to one node with the cores
of all. JSON and Markdown go to benchmarks/results.

docs/benchmarks.md says how the other programs are built, and how results are read.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.compare import RESULTS, machine_facts, model_file
from benchmarks.lan.exchanges import exchanges_of
from benchmarks.lan.floor import Floor, compiled, measure_floor, why_no_floor
from benchmarks.lan.rounds import Sample, fits_at_once, measure_in_turn, rows_of
from benchmarks.lan.set_ups import Link, Programs, SetUp, set_ups
from benchmarks.lan.site import Model, Site
from benchmarks.lan.tables import markdown, rich_table, sentences, test_title
from benchmarks.names import parse_test
from benchmarks.namespaces import Lan, lan_of, why_no_namespaces
from dllama.cli.flags.arguments import comma_list
from dllama.host.container import available_memory

TESTS = ("pp512", "tg64", "tg64xb8")
ENCRYPTIONS = {"on": True, "off": False}


def node_cores(nodes: int, cores: int) -> list[list[int]]:
    """Returns the cores of each node. Raises SystemExit where this machine has too few."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < nodes * cores:
        raise SystemExit(
            f"{nodes} nodes with {cores} core(s) each need {nodes * cores} cores, and this machine "
            f"gives {len(own)}; lower --nodes or --cores"
        )
    return [own[i * cores : (i + 1) * cores] for i in range(nodes)]


def programs_of(args: argparse.Namespace, raw_tcp: Path | None = None) -> Programs:
    """Returns the other programs. Raises SystemExit where one that is named is not there."""
    folder = args.llama_cpp
    found = Programs(
        args.distributed_llama and args.distributed_llama.resolve(),
        folder and (folder / "llama-batched-bench").resolve(),
        folder and _rpc_server(folder).resolve(),
        raw_tcp,
    )
    for program in (found.distributed_llama, found.batched_bench, found.rpc_server):
        if program is not None and not os.access(program, os.X_OK):
            raise SystemExit(f"{program} is no program; docs/benchmarks.md says how it is built")
    return found


def _rpc_server(folder: Path) -> Path:
    """Returns llama.cpp's server, which was called rpc-server until 2026."""
    older = folder / "rpc-server"
    return older if older.exists() else folder / "ggml-rpc-server"


def models_of(args: argparse.Namespace, programs: Programs) -> list[Model]:
    """Returns the models that are named, or those of the shapes, written once."""
    is_m = programs.distributed_llama is not None
    if not args.models:
        return [
            Model(
                model_file(shape, args.type),
                model_file(shape, args.type, is_m=True) if is_m else None,
            )
            for shape in args.shapes
        ]
    found = [Model(f.resolve(), f.resolve().with_suffix(".m") if is_m else None)
             for f in map(Path, args.models)]  # fmt: skip
    for model in found:
        if model.m_file is not None and not model.m_file.exists():
            raise SystemExit(f"distributed-llama needs {model.m_file} beside {model.gguf.name}")
        if programs.batched_bench is not None and model.gguf.suffix != ".gguf":
            raise SystemExit(f"llama.cpp reads GGUF files alone, not {model.gguf.name}")
    return found


class Bench:
    """All that is the same for every link."""

    def __init__(self, args: argparse.Namespace, folder: Path, tell: Console) -> None:
        why_not = why_no_floor()
        if why_not is not None:
            tell.print(why_not)
        self.programs = programs_of(args, None if why_not else compiled(folder))
        self.cores = node_cores(args.nodes, args.cores)
        encryptions = [ENCRYPTIONS[word] for word in args.encrypt]
        self.set_ups = set_ups(
            args.nodes, args.cores, args.sync_types, encryptions, self.programs
        )  # fmt: skip
        self.tests: Sequence[str] = args.tests
        self.sync_types: Sequence[str] = args.sync_types
        self.rounds: int = args.rounds
        self._folder, self._tell = folder, tell

    def run(self, model: Model, link: Link) -> dict[str, Any]:
        """Returns what one model does on one link."""
        needs = [parse_test(test).n_pages for test in self.tests]
        size = model.gguf.stat().st_size
        holds_all = fits_at_once(self.set_ups, size, available_memory())
        with (
            lan_of(len(self.cores), link.rate_mbit, link.delay_ms) as lan,
            closing(Site(lan, self._folder, self.cores, self.programs)) as site,
        ):
            kinds = list(dict.fromkeys(s.background for s in self.set_ups if s.background))
            site.start([kind for kind in kinds if kind == "plain TCP"])
            floors = self._floors(model, lan) if "plain TCP" in kinds else []
            site.start([kind for kind in kinds if kind != "plain TCP"])
            found = measure_in_turn(
                self.set_ups, self.tests, self.rounds,
                lambda set_up: site.open(set_up, model, max(needs) + 1), self._note,
                holds_all=holds_all,
            )  # fmt: skip
        return {
            "model": model.gguf.stem, "link": link.name, **asdict(link), "tests": self.tests,
            "loaded": "once" if holds_all else "for every round",
            "floors": [asdict(floor) for floor in floors],
            "rows": rows_of(found, self.set_ups[1]),
        }  # fmt: skip

    def _floors(self, model: Model, lan: Lan) -> list[Floor]:
        assert self.programs.raw_tcp is not None
        parsed = [parse_test(test) for test in self.tests]
        rows = sorted({1 if t.is_decode else t.n_tokens for t in parsed if t.batch == 1})
        return [
            measure_floor(lan, self.programs.raw_tcp, exchanges, self.cores[0], self.rounds)
            for exchanges in exchanges_of(
                model.config(), self.sync_types, rows, normed_quants=model.normed_quants()
            )
        ]

    def _note(self, number: int, set_up: SetUp, test: str, sample: Sample) -> None:
        speed = sample["tokens_per_s"]
        told = "cannot" if speed is None else f"{speed:.2f} tokens/s"
        self._tell.print(f"round {number + 1}, {set_up.name}, {test_title(test)}: {told}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.network", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--shapes", type=comma_list, default=("llama-3.2-1b",), metavar="NAME,...",
        help="random models of these shapes, as benchmarks.random_model knows them")  # fmt: skip
    add("--type", default="Q4_0", help="the type of their weights")
    add("--models", type=comma_list, default=(), metavar="FILE,...",
        help="GGUF files instead; distributed-llama reads the .m and .t beside them")  # fmt: skip
    add("--tests", type=comma_list, default=TESTS, metavar="NAME,...",
        help="pp512 is a prompt, tg64 decodes, tg64xb8 decodes 8 sequences at once")  # fmt: skip
    add("--rates", type=comma_list, default=("1000",), metavar="MBIT,...",
        help="of the links: 100,1000,2500,10000")  # fmt: skip
    add("--delays", type=comma_list, default=("0",), metavar="MS,...",
        help="one way, on top of what a link has anyway; each with each rate")  # fmt: skip
    add("--nodes", type=int, default=2, metavar="N")
    add("--cores", type=int, default=1, metavar="N", help="of each node, and as many threads")
    add("--sync-types", type=comma_list, default=("exact", "f32", "q80"), metavar="NAME,...")
    add("--encrypt", type=comma_list, default=("on", "off"), metavar="on,off",
        help="links of dllama's nodes")  # fmt: skip
    add("--rounds", type=int, default=5, metavar="N", help="of which the medians are told")
    add("--distributed-llama", type=Path, metavar="PROGRAM", help="its program, `dllama`")
    add("--llama-cpp", type=Path, metavar="FOLDER",
        help="where its llama-batched-bench and ggml-rpc-server (or rpc-server) are")  # fmt: skip
    add("--json", type=Path, metavar="FILE",
        help="where to write (default: benchmarks/results); Markdown beside it")  # fmt: skip
    return parser


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program where flags make no sense."""
    if args.nodes < 2 or args.cores < 1 or args.rounds < 1:
        parser.error("--nodes is 2 or more, --cores and --rounds 1 or more")
    if not set(args.encrypt) <= ENCRYPTIONS.keys():
        parser.error("--encrypt is on, off or on,off")
    try:
        args.rates = [float(word) for word in args.rates]
        args.delays = [float(word) for word in args.delays]
        for test in args.tests:
            parse_test(test)
    except ValueError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and clean up
    parser = build_parser()
    args = parser.parse_args(argv)
    check(parser, args)
    if (reason := why_no_namespaces()) is not None:
        raise SystemExit(f"{reason}; start this as root on Linux")
    os.environ["DLLAMA_SHARED_MEMORY"] = "0"  # of namespaces too the memory is one
    console = Console(width=None if sys.stdout.isatty() else 160)
    facts = machine_facts()
    out = args.json or RESULTS / (
        f"{facts['cpu']}-{facts['cores']}-{facts['date']}-{facts['commit']}-network.json"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "machine": facts, "nodes": args.nodes, "cores_per_node": args.cores, "rounds": args.rounds,
        "runs": [],
    }  # fmt: skip
    links = [Link(rate, delay) for rate in args.rates for delay in args.delays]
    with tempfile.TemporaryDirectory() as folder:  # of all links: weights are sent once
        bench = Bench(args, Path(folder), Console(stderr=True, highlight=False))
        for model, link in product(models_of(args, bench.programs), links):
            run = bench.run(model, link)
            found["runs"].append(run)
            console.print(rich_table(run))
            console.print("\n".join(sentences(run)), highlight=False)
            out.write_text(json.dumps(found, indent=1) + "\n")  # what is measured is not lost
            out.with_suffix(".md").write_text(markdown(found))
    console.print(f"written to {out} and {out.with_suffix('.md').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
