"""Encodes each rank's slice of the logits in few bytes, and joins the slices to the rows of the
sampler.

A part is: int32 n_vocab, then tops and sums (R, units) float32: of each unit of the vocabulary the
largest logit and the sum of exp(logit - top). Then for each row either its k candidates (ids int32,
values float32) or, where the whole row is wanted, its n_vocab logits. Units are those of the model
(dllama/sharding/units.py), so that the softmax's denominator has the same bits for all cuts.
"""

from __future__ import annotations

import math

import numpy as np

from dllama.errors import ProtocolError
from dllama.runtime.state import RunState
from dllama.step import LogitRow
from kernels.candidates import scan_logits


def encode_part(
    logits: np.ndarray, n_vocab: int, vocab_start: int, unit: int, counts: np.ndarray,
    state: RunState, team: np.ndarray,
) -> bytes:  # fmt: skip
    """Encodes this rank's part for rank 0, of the first `n_vocab` of its logits (R, >= n_vocab):
    those of tokens. Logits of padding are left out of the sums too: a token's log-probability is
    then that of the distribution that tokens are drawn from, and those of all tokens add up to 1.
    """
    n, n_units = len(counts), -(-n_vocab // unit)
    pieces = [np.int32(n_vocab).tobytes()]
    if n and n_vocab:
        scan_logits(team, logits, n_vocab, vocab_start, unit, counts, state.ids, state.values,
                    state.tops, state.sums)  # fmt: skip
    pieces += [state.tops[:n, :n_units].tobytes(), state.sums[:n, :n_units].tobytes()]
    for row in range(n):
        k = min(int(counts[row]), n_vocab)
        if counts[row]:
            pieces += [state.ids[row, :k].tobytes(), state.values[row, :k].tobytes()]
        else:
            pieces.append(logits[row, :n_vocab].tobytes())
    return b"".join(pieces)


class _Part:
    """One rank's part, read front to back."""

    def __init__(self, data: bytes, n_rows: int, unit: int) -> None:
        self._data, self._at = data, 0
        self.n_vocab = int(self._take(np.int32, 1)[0])
        n_units = -(-self.n_vocab // unit)
        self.tops = self._take(np.float32, n_rows * n_units).reshape(n_rows, n_units)
        self.sums = self._take(np.float32, n_rows * n_units).reshape(n_rows, n_units)

    def _take(self, kind: type[np.generic], count: int) -> np.ndarray:
        end = self._at + count * 4
        if count < 0 or end > len(self._data):
            raise ProtocolError(
                f"a rank's logits end at byte {len(self._data)}, but {end} were announced; "
                "the nodes run different versions, or the message was damaged"
            )
        values = np.frombuffer(self._data, kind, count, self._at)
        self._at = end
        return values

    def row(self, count: int) -> tuple[np.ndarray | None, np.ndarray]:
        if not count:
            return None, self._take(np.float32, self.n_vocab)
        k = min(count, self.n_vocab)
        return self._take(np.int32, k), self._take(np.float32, k)


def merge_parts(parts: list[bytes], counts: np.ndarray, unit: int, n_tokens: int) -> list[LogitRow]:
    """Returns the rows for the sampler, from every rank's part in rank order.

    Raises ProtocolError where a part is shorter than it says, or where the parts are not those of
    a vocabulary of `n_tokens`: samplers index by ids and do not check them again. A single part
    is the caller's own, who warms up alone.
    """
    n = len(counts)
    ranks = [_Part(part, n, unit) for part in parts]
    n_found = sum(rank.n_vocab for rank in ranks)
    if len(parts) > 1 and n_found != n_tokens:
        raise ProtocolError(
            f"the ranks sent logits of {n_found} tokens and the model has {n_tokens}; the nodes "
            "run different versions, or a message was damaged"
        )
    totals = _log_sum_exp(
        np.concatenate([rank.tops for rank in ranks], axis=1).astype(np.float64),
        np.concatenate([rank.sums for rank in ranks], axis=1).astype(np.float64),
    )
    rows = []
    for count, total in zip(counts.tolist(), totals, strict=True):
        pieces = [rank.row(count) for rank in ranks]
        rows.append(_merge_row(pieces, count, total, n_tokens))
    return rows


def _merge_row(
    pieces: list[tuple[np.ndarray | None, np.ndarray]],
    count: int,
    log_sum_exp: float,
    n_tokens: int,
) -> LogitRow:
    values = np.concatenate([v for _, v in pieces]) if len(pieces) > 1 else pieces[0][1]
    if not count:
        return LogitRow(None, values, log_sum_exp)
    found = [i for i, _ in pieces if i is not None]
    ids = np.concatenate(found) if len(found) > 1 else found[0]
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= n_tokens:
        raise ProtocolError(f"a rank sent the logit of a token that none of {n_tokens} is")
    if len(pieces) > 1:
        best = np.lexsort((ids, -values))[:count]
        ids, values = ids[best], values[best]
    return LogitRow(ids, values, log_sum_exp)


def _log_sum_exp(tops: np.ndarray, sums: np.ndarray) -> list[float]:
    """Returns the log of each row's softmax's denominator, from (R, units) of all ranks.

    Not a number where the logits are none: the sampler then ends that sequence with a reason.
    """
    with np.errstate(all="ignore"):
        top = tops.max(axis=1, initial=-np.inf)
        total = (sums * np.exp(tops - top[:, None])).sum(axis=1)
        found = top + np.log(total)
    found[~(np.isfinite(tops).all(axis=1) & np.isfinite(sums).all(axis=1))] = math.nan
    return [float(value) for value in found]
