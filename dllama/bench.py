"""Prefill and decode throughput of a Runner, with llama-bench's definitions.

ppN: N random tokens from empty KV, logits of the last only. tgN: N single-token steps, each
waiting for its logits, the next token random. @dD puts D tokens into the KV first, untimed; xbB
decodes B sequences side by side and counts all their tokens. Tokenizing, sampling and text are
never in the figures. (llama.cpp, tools/llama-bench/README.md)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from dllama.runner import Runner
from dllama.step import PAGE_TOKENS, Step
from dllama.windows import ring_of_pages


@dataclass(frozen=True, slots=True)
class Test:
    """One line of the table: `n_tokens` of prefill or decode at a depth, in a batch."""

    is_decode: bool
    n_tokens: int
    depth: int = 0
    batch: int = 1

    @property
    def name(self) -> str:
        depth = f"@d{self.depth}" if self.depth else ""
        batch = f"xb{self.batch}" if self.batch > 1 else ""
        return f"{'tg' if self.is_decode else 'pp'}{self.n_tokens}{batch}{depth}"

    @property
    def n_pages(self) -> int:
        """KV pages the test needs."""
        return self.batch * (-(-(self.depth + self.n_tokens) // PAGE_TOKENS))


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a test: means over its repeats; milliseconds are per token."""

    test: str
    threads: int
    nodes: int
    tokens_per_s: float
    stdev: float
    gb_per_s: float
    compute_ms: float
    wait_ms: float
    network_ms: float
    predicted_per_s: float | None = None  # tokens; of a planned cluster and one sequence
    samples: list[float] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class Bench:
    """Runs tests on one runner; nothing of a test stays for the next."""

    def __init__(self, runner: Runner, *, max_step_tokens: int, seed: int = 0) -> None:
        self._runner, self._max_step_tokens = runner, max_step_tokens
        self._rng = np.random.default_rng(seed)

    def measure(
        self, test: Test, repeats: int, on_repeat: Callable[[int, float], None] | None = None
    ) -> Result:
        """Warms up, then measures `repeats` times. Raises PeerLost."""
        self._once(Test(test.is_decode, 1 if test.is_decode else test.n_tokens, 0, test.batch))
        samples, details = [], []
        for i in range(repeats):
            seconds, detail = self._once(test)
            samples.append(test.n_tokens * test.batch / seconds)
            details.append(detail)
            if on_repeat is not None:
                on_repeat(i + 1, samples[-1])
        rows = self._runner.stats()
        mean = {k: statistics.fmean(d[k] for d in details) for k in details[0]}
        return Result(
            test.name, _number(rows[0]["threads"]), len(rows), statistics.fmean(samples),
            statistics.stdev(samples) if repeats > 1 else 0.0, mean["gb_per_s"],
            mean["compute_ms"], mean["wait_ms"], mean["network_ms"],
            _predicted(rows[0].get("predicted"), test), samples,
        )  # fmt: skip

    def _once(self, test: Test) -> tuple[float, dict[str, float]]:
        """Returns the seconds of one run, and rank 0's times in milliseconds per token."""
        if test.depth:
            for sequence in range(test.batch):
                self._prefill(test, sequence, 0, test.depth)
        before = self._counters()
        start = time.perf_counter()
        if test.is_decode:
            for i in range(test.n_tokens):
                self._decode(test, test.depth + i)
            n_passes, n_tokens = test.n_tokens, test.n_tokens * test.batch
        else:
            n_tokens = test.n_tokens
            n_passes = self._prefill(test, 0, test.depth, n_tokens)
        seconds = time.perf_counter() - start
        spent = {k: v - before[k] for k, v in self._counters().items()}
        detail = {k: spent[k] / 1e6 / n_tokens for k in ("compute_ns", "wait_ns", "network_ns")}
        gb_per_s = self._runner.weight_bytes * n_passes / seconds / 1e9
        return seconds, {
            "gb_per_s": gb_per_s,
            "compute_ms": detail["compute_ns"],
            "wait_ms": detail["wait_ns"],
            "network_ms": detail["network_ns"],
        }

    def _counters(self) -> dict[str, int]:
        return self._runner.counters()

    def _prefill(self, test: Test, sequence: int, first: int, n: int) -> int:
        """Fills n positions of a sequence from `first` on; returns how many steps it took."""
        starts = range(first, first + n, self._max_step_tokens)
        for start in starts:
            end = min(first + n, start + self._max_step_tokens)
            wants = np.array([end - start - 1] if end == first + n else [], np.int32)
            self._runner.run(self._step(test, [sequence], start, end - start, wants))
        return len(starts)

    def _decode(self, test: Test, position: int) -> None:
        sequences = list(range(test.batch))
        wants = np.arange(test.batch, dtype=np.int32)
        self._runner.run(self._step(test, sequences, position, 1, wants))

    def _step(
        self, test: Test, sequences: list[int], position: int, n: int, wants: np.ndarray
    ) -> Step:
        per = test.n_pages // test.batch
        total = n * len(sequences)
        positions = np.tile(np.arange(position, position + n, dtype=np.int32), len(sequences))
        pages = np.array([np.arange(s * per, (s + 1) * per) for s in sequences], np.int32)
        n_ring = self._runner.n_window_pages // test.batch
        rings = [ring_of_pages(per, n_ring, s * n_ring) for s in sequences if n_ring]
        vocab_size = self._runner.config.vocab_size
        return Step(
            tokens=self._rng.integers(0, vocab_size, total).astype(np.int32),
            positions=positions,
            starts=np.arange(0, total + 1, n, dtype=np.int32),
            pages=pages,
            logits_at=wants,
            candidates=np.ones(len(wants), np.int32),
            window_pages=np.array(rings, np.int32).reshape(len(rings), -1),
        )


def tests(
    prompts: list[int], gens: list[int], depths: list[int], batches: list[int]
) -> Iterator[Test]:
    """Returns the tests: prompts at every depth, decodes at every depth in every batch."""
    for depth in depths:
        for n in prompts:
            if n:
                yield Test(False, n, depth)
        for batch in batches:
            for n in gens:
                if n:
                    yield Test(True, n, depth, batch)


def _predicted(found: object, test: Test) -> float | None:
    """Returns what a planned cluster has predicted for a test of one sequence."""
    if not isinstance(found, dict) or test.batch > 1:
        return None
    value = found["tokens_per_s" if test.is_decode else "prefill_tokens_per_s"]
    return float(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
