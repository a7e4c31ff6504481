"""llama.cpp as a peer of a comparison, through llama-cpp-python's C bindings.

Run by an interpreter that has llama-cpp-python built for the native processor
(CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python); it
imports nothing of dllama. Same protocol and definitions as with_dllama.py: random tokens, logits of
the last row of a prompt and of every decoded token, nothing sampled.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from typing import Any

import llama_cpp as ll
import numpy as np

from benchmarks.peers.loop import Ready, serve

N_BATCH, N_UBATCH, MAX_SEQUENCES = 2048, 512, 64
_NAME = re.compile(r"(pp|tg)(\d+)(?:xb(\d+))?(?:@d(\d+))?")


class Peer:
    """One loaded model."""

    def __init__(self, path: str, threads: int, n_ctx: int) -> None:
        ll.llama_backend_init()
        self._silent = ll.llama_log_callback(lambda *args: None)
        ll.llama_log_set(self._silent, ctypes.c_void_p(0))
        params: Any = ll.llama_model_default_params()
        self._model = ll.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise SystemExit(f"llama.cpp does not load {path}")
        config: Any = ll.llama_context_default_params()
        config.n_ctx, config.n_batch, config.n_ubatch = n_ctx, N_BATCH, N_UBATCH
        config.n_threads = config.n_threads_batch = threads
        config.n_seq_max, config.kv_unified = MAX_SEQUENCES, True
        self._context = ll.llama_init_from_model(self._model, config)
        self._n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self._model))
        self._batch: Any = ll.llama_batch_init(N_BATCH, 0, 1)
        self._rng = np.random.default_rng(0)

    def measure(self, name: str) -> float:
        """Tokens per second of one run of a test, after one warm-up."""
        found = _NAME.fullmatch(name)
        assert found is not None, name
        kind, n, batch, depth = found[1], int(found[2]), int(found[3] or 1), int(found[4] or 0)
        if kind == "pp":
            self._prompt(n)
            return n / self._prompt(n)
        self._decode(1, batch, 0)
        return n * batch / self._decode(n, batch, depth)

    def _clear(self) -> None:
        ll.llama_memory_clear(ll.llama_get_memory(self._context), True)

    def _prompt(self, n: int) -> float:
        self._clear()
        start = time.perf_counter()
        self._fill(n, 0, wants_last=True)
        return time.perf_counter() - start

    def _decode(self, n: int, batch: int, depth: int) -> float:
        self._clear()
        for sequence in range(batch):
            if depth:
                self._fill(depth, sequence, wants_last=False)
        start = time.perf_counter()
        for i in range(n):
            self._batch.n_tokens = batch
            for s in range(batch):
                self._put(s, depth + i, s, wants_logits=True)
            self._run()
        return time.perf_counter() - start

    def _fill(self, n: int, sequence: int, *, wants_last: bool) -> None:
        for first in range(0, n, N_BATCH):
            count = min(N_BATCH, n - first)
            self._batch.n_tokens = count
            for i in range(count):
                is_last = first + i == n - 1
                self._put(i, first + i, sequence, wants_logits=wants_last and is_last)
            self._run()

    def _put(self, row: int, position: int, sequence: int, *, wants_logits: bool) -> None:
        b = self._batch
        b.token[row] = int(self._rng.integers(0, self._n_vocab))
        b.pos[row], b.n_seq_id[row], b.seq_id[row][0] = position, 1, sequence
        b.logits[row] = wants_logits

    def _run(self) -> None:
        code = ll.llama_decode(self._context, self._batch)
        assert code == 0, f"llama_decode: {code}"
        ll.llama_synchronize(self._context)


def main() -> int:
    path, threads = sys.argv[1:3]

    def load(pages: int) -> Ready:
        peer = Peer(path, int(threads), -(-32 * pages // 256) * 256)
        version = f"llama.cpp ({ll.__version__})"
        return Ready(version, lambda name: {"tokens_per_s": peer.measure(name)})

    serve(load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
