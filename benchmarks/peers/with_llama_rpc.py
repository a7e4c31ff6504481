"""llama.cpp over its RPC as a peer of a comparison: half of the weights here, half on a server.

`python -m benchmarks.peers.with_llama_rpc BATCHED_BENCH MODEL.gguf THREADS N_REMOTE HOST:PORT`:
llama.cpp's program `llama-batched-bench`, and the number of layers, the head counted as one, that
the server has. Same protocol as with_dllama.py. The program is started for every test and loads
anew; loading is not in its rates.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

from benchmarks.names import parse_test
from benchmarks.peers.loop import Ready, serve
from dllama.bench import Test
from dllama.step import PAGE_TOKENS

LONGEST_S = 1800.0  # a first start sends the weights, at 100 Mbit/s perhaps


def remote_layers(layer_weights: int, head_weights: int, n_layers: int) -> int:
    """Returns how many layers, the head counted as one, a server is given so that it has as near
    half of the weights as can be: llama.cpp gives a server the head first, then the last layers."""
    half = (layer_weights * n_layers + head_weights) / 2
    n = round((half - head_weights) / layer_weights)
    return 1 + min(max(n, 0), n_layers)


def rate(test: Test, said: str) -> float:
    """Returns the tokens per second of a test. Raises ValueError where the program said none."""
    for line in said.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            return float(found["speed_tg" if test.is_decode else "speed_pp"])
    raise ValueError(f"llama-batched-bench printed no rates; it ended with: {said[-500:]!r}")


def command_of(test: Test, words: list[str]) -> list[str]:
    """Returns the command that measures a test; `words` is this module's command line."""
    program, model, threads, n_remote, server = words
    n_prompt = max(test.depth, 1) if test.is_decode else test.n_tokens
    n_answer = test.n_tokens if test.is_decode else 1
    n_ctx = test.batch * ((n_prompt + n_answer) // PAGE_TOKENS + 2) * PAGE_TOKENS
    return [
        program, "-m", model, "-t", threads, "-ngl", n_remote, "--rpc", server, "-fit", "off",
        "-c", str(n_ctx), "-b", "2048", "-ub", "512", "-npp", str(n_prompt), "-ntg", str(n_answer),
        "-npl", str(test.batch), "--output-format", "jsonl",
    ]  # fmt: skip


def main() -> int:
    words = sys.argv[1:]

    def measure(name: str) -> dict[str, object]:
        test = parse_test(name)
        done = subprocess.run(
            command_of(test, words), capture_output=True, text=True, timeout=LONGEST_S
        )
        if done.returncode:
            raise SystemExit(f"llama-batched-bench failed: {done.stderr[-1000:]}")
        return {"tokens_per_s": rate(test, done.stdout)}

    def load(pages: int) -> Ready:
        measure("tg1")
        return Ready("llama.cpp", measure)

    serve(load, who=resource.RUSAGE_CHILDREN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
