"""llama.cpp's side of benchmarks.perplexity, for an interpreter that has llama-cpp-python.

`score MODEL THREADS` reads windows of token ids as JSON on stdin and prints the sum of -log p of
the tokens that count (dllama/perplexity.py); `quantize MODEL OUT TYPE` writes a file whose matrices
are of another type, its embedding and head Q8_0.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import llama_cpp as ll
import numpy as np
from gguf import GGUFReader


def score(path: str, threads: int, windows: list[list[int]]) -> float:
    width = max(map(len, windows))
    params: Any = ll.llama_model_default_params()
    model = ll.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp does not load {path}")
    config: Any = ll.llama_context_default_params()
    config.n_ctx = config.n_batch = config.n_ubatch = -(-width // 256) * 256
    config.n_threads = config.n_threads_batch = threads
    context = ll.llama_init_from_model(model, config)
    n_vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch: Any = ll.llama_batch_init(width, 0, 1)
    total = 0.0
    for ids in windows:
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, True
        assert ll.llama_decode(context, batch) == 0
        for at in range(len(ids) - 1):
            if at >= len(ids) // 2:
                raw = ll.llama_get_logits_ith(context, at)
                row = np.ctypeslib.as_array(raw, (n_vocab,)).astype(np.float64)
                top = row.max()
                total += top + np.log(np.exp(row - top).sum()) - row[ids[at + 1]]
    return float(total)


def quantize(source: str, path: str, kind: str) -> None:
    params: Any = ll.llama_model_quantize_default_params()
    params.ftype = getattr(ll, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = params.pure = True
    params.token_embedding_type = params.output_tensor_type = ll.GGML_TYPE_Q8_0
    matrices = [t for t in GGUFReader(source).tensors if len(t.shape) == 2]
    params.imatrix = ctypes.cast(_all_alike(matrices), type(params.imatrix))
    code = ll.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(params))
    if code:
        raise SystemExit(f"llama.cpp could not make {kind} of {source}: {code}")


def _all_alike(matrices: list[Any]) -> Any:
    """An importance matrix, without which there are no types of less than 3 bits: all columns
    count alike. A row without a name ends it."""
    rows = (ll.llama_model_imatrix_data * (len(matrices) + 1))()
    for row, matrix in zip(rows, matrices, strict=False):
        n_cols = int(matrix.shape[0])
        row.name, row.size = matrix.name.encode(), n_cols
        row.data = (ctypes.c_float * n_cols)(*[1.0] * n_cols)
    return rows


def main() -> int:
    silent = ll.llama_log_callback(lambda *args: None)
    ll.llama_log_set(silent, ctypes.c_void_p(0))
    ll.llama_backend_init()
    if sys.argv[1] == "quantize":
        quantize(*sys.argv[2:5])
    else:
        print(score(sys.argv[2], int(sys.argv[3]), json.load(sys.stdin)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
