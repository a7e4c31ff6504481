"""Steps that make every node compile its kernels before a request needs them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dllama.step import PAGE_TOKENS, Step

WARM_UP_TOKENS = 64


def warm_up_steps(max_step_tokens: int, n_pages: int, max_seq_len: int) -> Iterator[Step]:
    """A long step with a whole row of logits, and a short one with a candidate.

    What they leave in the first pages is overwritten before it is read.
    """
    longest = min(WARM_UP_TOKENS, max_step_tokens, n_pages * PAGE_TOKENS, max_seq_len)
    for n_tokens, candidates in ((longest, 0), (1, 1)):
        ids = np.arange(n_tokens, dtype=np.int32)
        yield Step(
            tokens=np.zeros_like(ids),
            positions=ids,
            starts=np.array([0, n_tokens], np.int32),
            pages=np.arange(-(-n_tokens // PAGE_TOKENS), dtype=np.int32)[None, :],
            logits_at=ids[-1:],
            candidates=np.array([candidates], np.int32),
        )
