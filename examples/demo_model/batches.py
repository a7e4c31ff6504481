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
ROUND = 256  # positions that count are padded to a multiple of this
OPENING_TOKENS = 6


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


@dataclass(frozen=True, slots=True)
class AnswerCut:
    """Which documents end early: a `share` of those with one answer, `after` tokens into it. What
    an answer is gets decided at its beginning, and the rest is soon known by heart: the time is
    better spent on more questions."""

    share: float
    after: int
    seed: int


def encode_corpus(
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    max_len: int,
    cut: AnswerCut | None = None,
) -> Corpus:
    """Documents are cut after `max_len` tokens, and as `cut` says."""
    ids: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    chunk: list[Document] = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == CHUNK:
            _encode(tokenizer, chunk, max_len, ids, answers)
            chunk = []
    _encode(tokenizer, chunk, max_len, ids, answers)
    if cut is not None:
        _cut_answers(ids, answers, cut)
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


def _cut_answers(ids: list[np.ndarray], answers: list[np.ndarray], cut: AnswerCut) -> None:
    rng = np.random.default_rng(cut.seed)
    for i, is_answer in enumerate(answers):
        begins = np.flatnonzero(np.diff(is_answer.astype(np.int8)) == 1)
        if len(begins) == 1 and rng.random() < cut.share:
            end = int(begins[0]) + 1 + cut.after
            ids[i], answers[i] = ids[i][:end], answers[i][:end]


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


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents side by side, and the flat positions whose next token counts.

    Positions are padded with some of no weight to a multiple of ROUND: every new shape of a matrix
    product costs the CPU's library time and memory."""

    tokens: torch.Tensor  # (B, T) int64
    at: torch.Tensor  # (n,) int64, positions in B * T
    wanted: torch.Tensor  # (n,) int64, the tokens that come next
    weights: torch.Tensor  # (n,) float32
    n_tokens: int  # without padding


def make_batch(
    corpus: Corpus, documents: np.ndarray, *, question_share: float, opening: float, seed: int
) -> Batch:
    """All tokens of answers count, the first OPENING_TOKENS of each `opening` times as much: which
    answer it is gets decided there. Of the other tokens a random share counts."""
    rng = np.random.default_rng((seed, int(documents[0])))
    bounds = [(int(corpus.starts[d]), int(corpus.starts[d + 1])) for d in documents]
    width = _padded(max(end - start for start, end in bounds))
    tokens = np.full((len(bounds), width), PAD, np.int64)
    wanted = np.full((len(bounds), width), PAD, np.int64)
    weights = np.zeros((len(bounds), width), np.float32)
    for row, (start, end) in enumerate(bounds):
        n = end - start - 1
        tokens[row, : n + 1] = corpus.ids[start:end]
        wanted[row, :n] = corpus.ids[start + 1 : end]
        asked = (rng.random(n) < question_share).astype(np.float32)
        weights[row, :n] = np.where(
            corpus.is_answer[start + 1 : end],
            answer_weights(corpus.is_answer[start + 1 : end], opening),
            asked,
        )
    at = np.flatnonzero(weights)
    at = np.concatenate([at, np.zeros(-len(at) % ROUND, np.int64)])
    counted = weights.reshape(-1)[at]
    counted[np.count_nonzero(weights) :] = 0
    return Batch(
        tokens=torch.from_numpy(tokens),
        at=torch.from_numpy(at),
        wanted=torch.from_numpy(wanted.reshape(-1)[at]),
        weights=torch.from_numpy(counted),
        n_tokens=sum(end - start for start, end in bounds),
    )


def answer_weights(is_answer: np.ndarray, opening: float) -> np.ndarray:
    """`opening` for the first OPENING_TOKENS of every run of answer tokens, 1 elsewhere."""
    ahead = np.concatenate([np.zeros(OPENING_TOKENS, bool), is_answer])
    is_later = np.ones(len(is_answer), bool)
    for back in range(1, OPENING_TOKENS + 1):
        is_later &= ahead[OPENING_TOKENS - back : len(ahead) - back]
    return np.where(is_later, np.float32(1), np.float32(opening))
