"""Logits of a GGUF file as llama.cpp computes them, by llama-cpp-python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.dllama.models.our_logits import Shift

F32 = 0  # GGML_TYPE_F32
OFF = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED


NO_SHIFT = Shift(-1, 0, 0)


def llama_cpp_logits(
    path: Path, tokens: Sequence[int], n_prompt: int, shift: Shift | None = None
) -> np.ndarray:
    """Returns the logits (T, vocab) after each token: of the first `n_prompt` as one batch, of the
    others one by one; keys and values are float32. Another process computes them, as what llama.cpp
    does not load may end it. Raises ValueError with what it said."""
    out = path.with_suffix(".npy")
    words = [path, out, n_prompt, *(shift or NO_SHIFT), *tokens]
    ended = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, words)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise ValueError(f"llama.cpp ended with {ended.returncode}: {ended.stderr[-2000:]}")
    logits: np.ndarray = np.load(out)
    return logits


def main() -> None:
    """Computes and writes them."""
    path, out, *words = sys.argv[1:]
    n_prompt, at, n_keep, n_drop, *tokens = map(int, words)
    np.save(out, _logits(Path(path), tokens, n_prompt, Shift(at, n_keep, n_drop)))


def _logits(path: Path, tokens: Sequence[int], n_prompt: int, shift: Shift) -> np.ndarray:
    import llama_cpp

    with _context(llama_cpp, path, len(tokens)) as (context, vocab_size):
        rows = _decode(llama_cpp, context, tokens[:n_prompt], 0, vocab_size)
        n_held = n_prompt
        for at, token in enumerate(tokens[n_prompt:], start=n_prompt):
            if at == shift.at:
                n_held -= _shift(llama_cpp, context, shift)
            rows += _decode(llama_cpp, context, [token], n_held, vocab_size)
            n_held += 1
    return np.array(rows)


@contextmanager
def _context(llama_cpp: Any, path: Path, n_tokens: int) -> Iterator[tuple[Any, int]]:
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit("it does not load the model")
    wanted = llama_cpp.llama_context_default_params()
    wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = max(256, n_tokens)
    wanted.type_k = wanted.type_v = F32
    wanted.flash_attn_type = OFF
    wanted.swa_full = True  # or there is no shift of layers with a window
    wanted.n_threads = wanted.n_threads_batch = 1
    context = llama_cpp.llama_init_from_model(model, wanted)
    try:
        vocab = llama_cpp.llama_model_get_vocab(model)
        yield context, llama_cpp.llama_vocab_n_tokens(vocab)
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _shift(llama_cpp: Any, context: Any, shift: Shift) -> int:
    memory = llama_cpp.llama_get_memory(context)
    if not llama_cpp.llama_memory_can_shift(memory):
        raise SystemExit("it has no context shift for this model")
    first, end = shift.n_keep, shift.n_keep + shift.n_drop
    llama_cpp.llama_memory_seq_rm(memory, 0, first, end)
    llama_cpp.llama_memory_seq_add(memory, 0, end, -1, -shift.n_drop)
    return shift.n_drop


def _decode(
    llama_cpp: Any, context: Any, tokens: Sequence[int], at: int, vocab_size: int
) -> list[np.ndarray]:
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    try:
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, at + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        if llama_cpp.llama_decode(context, batch):
            raise SystemExit(f"it does not decode {len(tokens)} tokens at {at}")
        rows = [llama_cpp.llama_get_logits_ith(context, i) for i in range(len(tokens))]
        return [np.ctypeslib.as_array(row, (vocab_size,)).copy() for row in rows]
    finally:
        llama_cpp.llama_batch_free(batch)


if __name__ == "__main__":
    main()
