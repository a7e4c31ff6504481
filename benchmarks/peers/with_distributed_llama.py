"""distributed-llama as a peer of a comparison, by its own program and the rates that it prints.

`python -m benchmarks.peers.with_distributed_llama PROGRAM MODEL.m THREADS [HOST:PORT ...]`; the
tokenizer
is the .t file beside the model. Same protocol as with_dllama.py. The program is started for every
test, as it has no benchmark; loading is not in its rates, and neither are its threads' starts and
its sampling. It computes one sequence at a time: tests of a batch are answered with null.
"""

from __future__ import annotations

import random
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve
from dllama.step import PAGE_TOKENS
from dllama.tokenizer import Tokenizer

LONGEST_S = 900.0  # no run takes longer
_RATE = re.compile(r"^(Evaluation|Prediction)$.*?tokens/s: *([0-9.]+)", re.MULTILINE | re.DOTALL)


class Rates(NamedTuple):
    """Tokens per second of prompt and answer, as the program prints them."""

    evaluation: float
    prediction: float


def read_rates(said: str) -> Rates:
    """Raises ValueError where the program has printed none."""
    found = {name: float(rate) for name, rate in _RATE.findall(said)}
    if found.keys() != {"Evaluation", "Prediction"}:
        raise ValueError(f"distributed-llama printed no rates; it ended with: {said[-500:]!r}")
    return Rates(found["Evaluation"], found["Prediction"])


class Program:
    """The program with one model, its threads and its workers."""

    def __init__(self, binary: str, model: str, threads: int, workers: list[str]) -> None:
        tokenizer = str(Path(model).with_suffix(".t"))
        self._command = [
            binary, "inference", "--model", model, "--tokenizer", tokenizer,
            "--buffer-float-type", "q80", "--nthreads", str(threads), "--temperature", "0",
            *(["--workers", *workers] if workers else []),
        ]  # fmt: skip
        self._tokenizer = Tokenizer.from_t_file(tokenizer)
        self._random = random.Random(0)

    def prompt(self, n_tokens: int) -> str:
        """Returns a text of `n_tokens` tokens, BOS included."""
        ids = range(256, min(5000, self._tokenizer.vocab_size))
        pieces = [self._tokenizer.token_text(i) for i in ids]
        words = [piece for piece in pieces if re.fullmatch(r" [a-z]{1,4}", piece)]
        text = ""
        while (n := n_tokens - len(self._tokenizer.encode(text, add_special=True))) > 0:
            text += "".join(self._random.choices(words, k=n))
        return text

    def run(self, n_prompt: int, n_answer: int) -> Rates:
        n = n_prompt + n_answer
        command = [
            *self._command, "--prompt", self.prompt(n_prompt), "--steps", str(n),
            "--max-seq-len", str((n // PAGE_TOKENS + 2) * PAGE_TOKENS),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_S)
        return read_rates(done.stdout.decode("utf-8", "replace"))

    def measure(self, name: str) -> float | None:
        test = parse_test(name)
        if test.batch > 1:
            return None
        if not test.is_decode:
            return self.run(test.n_tokens + 1, 1).evaluation
        return self.run(test.depth + 2, test.n_tokens).prediction


def main() -> int:
    binary, model, threads, *workers = sys.argv[1:]

    def load(pages: int) -> Ready:
        program = Program(binary, model, int(threads), workers)
        program.run(2, 1)
        return Ready("distributed-llama", lambda name: {"tokens_per_s": program.measure(name)})

    serve(load, who=resource.RUSAGE_CHILDREN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
