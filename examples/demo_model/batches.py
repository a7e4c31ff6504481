"""Documents as token ids, and the order in which training meets them.

Documents of like length share a batch, one a row, instead of being packed end to end: attention
then costs next to nothing (measured: 1.7 times as many tokens a second as packed rows of 512), no
document sees another, and every one begins at position 0, as it does when the model is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from examples.demo_model.data.dialogue import Document, segments

PAD = 0
STEP = 16  # lengths are rounded up to a multiple of this
CHUNK = 4096  # documents that are encoded at once


@dataclass(frozen=True, slots=True)
class Corpus:
    """All documents end to end. `is_answer` tells which tokens the model has to write."""

    ids: np.ndarray  # (n,) uint16
    is_answer: np.ndarray  # (n,) bool
    starts: np.ndarray  # (documents + 1,) int64

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        partial = path.with_name("partial-" + path.name)
        np.savez(partial, ids=self.ids, is_answer=self.is_answer, starts=self.starts)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(path, allow_pickle=False) as found:
            return cls(found["ids"], found["is_answer"], found["starts"])


def encode_corpus(tokenizer: Tokenizer, documents: Iterable[Document], max_len: int) -> Corpus:
    """Documents are cut after `max_len` tokens."""
    ids: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    chunk: list[Document] = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == CHUNK:
            _encode(tokenizer, chunk, max_len, ids, answers)
            chunk = []
    _encode(tokenizer, chunk, max_len, ids, answers)
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return Corpus(np.concatenate(ids), np.concatenate(answers), starts)


def _encode(
    tokenizer: Tokenizer,
    documents: list[Document],
    max_len: int,
    ids: list[np.ndarray],
    answers: list[np.ndarray],
) -> None:
    pieces = [segments(document) for document in documents]
    encoded = iter(tokenizer.encode_batch_fast([text for part in pieces for text, _ in part]))
    for part in pieces:
        found = [(next(encoded).ids, is_answer) for _, is_answer in part]
        ids.append(np.concatenate([np.array(i, np.uint16) for i, _ in found])[:max_len])
        answers.append(np.concatenate([np.full(len(i), a) for i, a in found])[:max_len])


def plan_batches(corpus: Corpus, max_tokens: int, seed: int) -> list[np.ndarray]:
    """Document numbers of every batch: of like length, at most `max_tokens` with padding, in
    random order."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(corpus.starts)
    order = rng.permutation(corpus.n_documents)
    order = order[np.argsort(-(-lengths[order] // STEP), kind="stable")]
    batches: list[np.ndarray] = []
    first = 0
    for i in range(1, len(order) + 1):
        is_last = i == len(order)
        if is_last or (i + 1 - first) * _padded(int(lengths[order[i]])) > max_tokens:
            batches.append(order[first:i])
            first = i
    return [batches[i] for i in rng.permutation(len(batches))]


def _padded(n: int) -> int:
    return -(-n // STEP) * STEP


def make_batch(
    corpus: Corpus, documents: np.ndarray, question_share: float, seed: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(tokens (B, T), targets (B, T), flat positions that count). All answer tokens count, and of
    the others a random share."""
    rng = np.random.default_rng(seed)
    bounds = [(int(corpus.starts[d]), int(corpus.starts[d + 1])) for d in documents]
    width = _padded(max(end - start for start, end in bounds))
    tokens = np.full((len(bounds), width), PAD, np.int64)
    targets = np.full((len(bounds), width), PAD, np.int64)
    counts = np.zeros((len(bounds), width), bool)
    for row, (start, end) in enumerate(bounds):
        n = end - start - 1
        tokens[row, : n + 1] = corpus.ids[start:end]
        targets[row, :n] = corpus.ids[start + 1 : end]
        counts[row, :n] = corpus.is_answer[start + 1 : end] | (rng.random(n) < question_share)
    at = np.flatnonzero(counts)
    return torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(at)
