"""dllama and its own planner: what was predicted beside what is measured.

`python -m benchmarks.peers.with_plan MODEL THREADS [WORKERS] [--plans]`: the nodes are measured,
then the model is loaded on all of them, with equal shares or with planned ones. The line `plan`
measures the nodes anew; a test such as `pp512` or `tg32@d512` answers with its tokens/s beside what
the last measurement of the nodes predicts for these shares.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve
from cluster.planning.predict import Predictor
from cluster.planning.search import Search
from cluster.planning.store import MeasurementStore
from cluster.planning.work import ModelWork, Room
from cluster.root.measuring import measured_nodes, types_by_bytes
from dllama import __version__
from dllama.bench import Bench, Test
from dllama.cli.build import build_runner, cluster_config
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import open_source
from dllama.kv_type import KvType

STEP_TOKENS = 512


class PlannedBench:
    """One model on some nodes. Closing frees it."""

    def __init__(self, settings: EngineSettings, n_pages: int, *, plans: bool) -> None:
        rows = settings.max_step_tokens + settings.max_batch
        with closing(open_source(settings)) as source:
            room = Room(n_pages, rows, KvType(settings.kv_type))
            self._work = ModelWork(source.config, source.tensors, room)
        self._config = cluster_config(settings, n_pages)
        self._nodes = tuple(range(1 + len(settings.workers)))
        self.measure_nodes()
        self.shares = self._best_shares() if plans else (1.0,) * len(self._nodes)
        chosen = replace(settings, shares=self.shares)
        self._runner = build_runner(chosen, lambda share, detail: None, n_pages)
        self._bench = Bench(self._runner, max_step_tokens=STEP_TOKENS)

    def measure_nodes(self) -> dict[str, object]:
        """Measures all nodes and links anew, and returns the seconds that it took."""
        began = time.perf_counter()
        facts, found = measured_nodes(
            self._config, "benchmark of the planner", __version__,
            types_by_bytes(self._work), MeasurementStore(None), anew=True,
        )  # fmt: skip
        self._predictor = Predictor(
            self._work, found.nodes(facts), found.network(), self._config.sync_type
        )
        return {"measuring_s": time.perf_counter() - began, "speeds": str(found.speeds)}

    def measure(self, name: str) -> dict[str, object]:
        """Returns what a test's tokens take and what was predicted of them, milliseconds each."""
        test = parse_test(name)
        compute_s, network_s = self._predicted(test)
        found = self._bench.measure(test, 1)
        return {
            **found.to_json(), "ranks": self._runner.stats(), "shares": self.shares,
            "predicted_per_s": test.n_tokens / (compute_s + network_s),
            "predicted_compute_ms": compute_s / test.n_tokens * 1e3,
            "predicted_network_ms": network_s / test.n_tokens * 1e3,
        }  # fmt: skip

    def close(self) -> None:
        self._runner.close()

    def _best_shares(self) -> Sequence[float]:
        plan = Search(self._predictor).best(self._nodes)
        assert plan is not None, "the model was measured with nodes that it can be cut for"
        return plan.shares

    def _predicted(self, test: Test) -> tuple[float, float]:
        """Returns the seconds of computing and of the network of a test of one sequence."""
        shards = self._work.shards(list(self.shares))
        if test.is_decode:
            step = self._predictor.step(self._nodes, shards, 1, test.depth + test.n_tokens // 2)
            return step.compute * test.n_tokens, step.network * test.n_tokens
        ends = range(test.depth, test.depth + test.n_tokens, STEP_TOKENS)
        steps = [
            self._predictor.step(
                self._nodes, shards, min(STEP_TOKENS, test.depth + test.n_tokens - done), done
            )
            for done in ends
        ]
        return sum(s.compute for s in steps), sum(s.network for s in steps)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    parser.add_argument("workers", nargs="*")
    parser.add_argument("--plans", action="store_true")
    args = parser.parse_args()
    settings = EngineSettings(
        model=args.model, threads=args.threads, max_step_tokens=STEP_TOKENS, max_batch=32,
        workers=tuple(args.workers),
    )  # fmt: skip
    with ExitStack() as stack:

        def load(pages: int) -> Ready:
            bench = stack.enter_context(closing(PlannedBench(settings, pages, plans=args.plans)))

            def measure(name: str) -> Mapping[str, object]:
                return bench.measure_nodes() if name == "plan" else bench.measure(name)

            return Ready("dllama", measure)

        serve(load)
    return 0


if __name__ == "__main__":
    main()
