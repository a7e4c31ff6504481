"""How likely a chosen token and its likeliest rivals were, for those who ask."""

from __future__ import annotations

import numpy as np

from dllama.engine.token_pool import TokenPool, largest
from dllama.requests import TokenProbs
from dllama.step import LogitRow

_LEAST = -3.4028234663852886e38  # of a token that cannot come: JSON knows no infinity


def logprobs_of(row: LogitRow, token: int, n: int) -> TokenProbs:
    """Natural log-probabilities by the model's own logits, before any sampler; the `n` best.

    The row is whole, or holds the token and at least n entries.
    """
    if row.ids is None:
        order = largest(row.logits, n) if n else np.zeros(0, np.int64)
        ids, logits, own = order, row.logits[order], row.logits[token]
    else:
        ids, logits = row.ids[:n], row.logits[:n]
        own = row.logits[np.flatnonzero(row.ids == token)[0]]
    values = np.maximum(logits.astype(np.float64) - row.log_sum_exp, _LEAST)
    return TokenProbs(
        token, max(float(own) - row.log_sum_exp, _LEAST), ids.tolist(), values.tolist()
    )


def probs_of(pool: TokenPool, index: int, n: int) -> TokenProbs:
    """Probabilities among the tokens that the samplers have left; up to `n` of them."""
    p = pool.probabilities()
    places = largest(p, n) if n else np.zeros(0, np.int64)
    places = places[p[places] > 0.0]
    ids = pool.token_ids()
    return TokenProbs(pool.token(index), float(p[index]), ids[places].tolist(), p[places].tolist())
