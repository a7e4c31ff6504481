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
NO_TOPIC = -1
STEP = 16  # lengths are rounded up to a multiple of this
CHUNK = 4096  # documents that are encoded at once
ROUND = 256  # positions that count are padded to a multiple of this
OPENING_TOKENS = 6


@dataclass(frozen=True, slots=True)
class Corpus:
    """All documents end to end. `is_answer` tells which tokens the model has to write."""

    ids: np.ndarray  # (n,) uint16
    is_answer: np.ndarray  # (n,) bool
    topics: np.ndarray  # (n,) int16: what a question's tokens ask for, NO_TOPIC elsewhere
    starts: np.ndarray  # (documents + 1,) int64
    n_topics: int

    @property
    def n_documents(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        partial = path.with_name("partial-" + path.name)
        np.savez(
            partial, ids=self.ids, is_answer=self.is_answer, topics=self.topics,
            starts=self.starts, n_topics=self.n_topics,
        )  # fmt: skip
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        with np.load(path, allow_pickle=False) as found:
            return cls(
                found["ids"], found["is_answer"], found["topics"], found["starts"],
                int(found["n_topics"]),
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnswerCut:
    """Which documents end early: a `share` of those with one answer, `after` tokens into it. An
    answer is decided at its beginning, and the rest is soon known by heart: time is better spent on
    more questions."""

    share: float
    after: int
    seed: int


def encode_corpus(
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    max_len: int,
    topics: tuple[str, ...],
    cut: AnswerCut | None = None,
) -> Corpus:
    """Documents are cut after `max_len` tokens, and as `cut` says. `topics` are numbered in their
    order; questions of others have none."""
    ids: list[np.ndarray] = []
    answers: list[np.ndarray] = []
    asked: list[np.ndarray] = []
    numbers = {topic: i for i, topic in enumerate(topics)}
    chunk: list[Document] = []
    for document in documents:
        chunk.append(document)
        if len(chunk) == CHUNK:
            _encode(tokenizer, chunk, max_len, numbers, (ids, answers, asked))
            chunk = []
    _encode(tokenizer, chunk, max_len, numbers, (ids, answers, asked))
    if cut is not None:
        _cut_answers(ids, answers, asked, cut)
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return Corpus(
        np.concatenate(ids), np.concatenate(answers), np.concatenate(asked), starts, len(topics)
    )


def _encode(
    tokenizer: Tokenizer,
    documents: list[Document],
    max_len: int,
    numbers: dict[str, int],
    found: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]],
) -> None:
    pieces = [segments(document) for document in documents]
    encoded = iter(tokenizer.encode_batch_fast([s.text for part in pieces for s in part]))
    ids, answers, asked = found
    for part in pieces:
        tokens = [np.array(next(encoded).ids, np.uint16) for _ in part]
        lengths = [len(piece) for piece in tokens]
        topics = np.array([numbers.get(s.topic, NO_TOPIC) for s in part], np.int16)
        ids.append(np.concatenate(tokens)[:max_len])
        answers.append(np.repeat([s.is_answer for s in part], lengths)[:max_len])
        asked.append(np.repeat(topics, lengths)[:max_len])


def _cut_answers(
    ids: list[np.ndarray], answers: list[np.ndarray], asked: list[np.ndarray], cut: AnswerCut
) -> None:
    rng = np.random.default_rng(cut.seed)
    for i, is_answer in enumerate(answers):
        begins = np.flatnonzero(np.diff(is_answer.astype(np.int8)) == 1)
        if len(begins) == 1 and rng.random() < cut.share:
            end = int(begins[0]) + 1 + cut.after
            ids[i], answers[i], asked[i] = ids[i][:end], answers[i][:end], asked[i][:end]


def plan_batches(
    corpus: Corpus, max_tokens: int, seed: int, documents: range | None = None
) -> list[np.ndarray]:
    """Document numbers of every batch: of like length, at most `max_tokens` with padding, in
    random order. Of all documents, or of some."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(corpus.starts)
    documents = documents or range(corpus.n_documents)
    order = documents.start + rng.permutation(len(documents))
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
    asked_at: torch.Tensor  # (m,) int64, positions of questions in B * T
    topics: torch.Tensor  # (m,) int64, what they ask for; NO_TOPIC where padded
    n_tokens: int  # without padding


def make_batch(
    corpus: Corpus, documents: np.ndarray, *, question_share: float, opening: float, seed: int
) -> Batch:
    """All tokens of answers count, the first OPENING_TOKENS of each `opening` times as much: the
    choice of the answer is made there. Of the other tokens a random share counts."""
    rng = np.random.default_rng((seed, int(documents[0])))
    bounds = [(int(corpus.starts[d]), int(corpus.starts[d + 1])) for d in documents]
    width = _padded(max(end - start for start, end in bounds))
    tokens = np.full((len(bounds), width), PAD, np.int64)
    wanted = np.full((len(bounds), width), PAD, np.int64)
    weights = np.zeros((len(bounds), width), np.float32)
    topics = np.full((len(bounds), width), NO_TOPIC, np.int64)
    for row, (start, end) in enumerate(bounds):
        n = end - start - 1
        tokens[row, : n + 1] = corpus.ids[start:end]
        wanted[row, :n] = corpus.ids[start + 1 : end]
        topics[row, : n + 1] = corpus.topics[start:end]
        asked = (rng.random(n) < question_share).astype(np.float32)
        weights[row, :n] = np.where(
            corpus.is_answer[start + 1 : end],
            answer_weights(corpus.is_answer[start + 1 : end], opening),
            asked,
        )
    at = _rounded(np.flatnonzero(weights))
    counted = weights.reshape(-1)[at]
    counted[np.count_nonzero(weights) :] = 0
    asked_at = _rounded(np.flatnonzero(topics != NO_TOPIC))
    named = topics.reshape(-1)[asked_at]
    named[np.count_nonzero(topics != NO_TOPIC) :] = NO_TOPIC
    return Batch(
        tokens=torch.from_numpy(tokens),
        at=torch.from_numpy(at),
        wanted=torch.from_numpy(wanted.reshape(-1)[at]),
        weights=torch.from_numpy(counted),
        asked_at=torch.from_numpy(asked_at),
        topics=torch.from_numpy(named),
        n_tokens=sum(end - start for start, end in bounds),
    )


def _rounded(at: np.ndarray) -> np.ndarray:
    """Positions (n,) with zeros behind, up to a multiple of ROUND."""
    return np.concatenate([at, np.zeros(-len(at) % ROUND, np.int64)])


def answer_weights(is_answer: np.ndarray, opening: float) -> np.ndarray:
    """`opening` for the first OPENING_TOKENS of every run of answer tokens, 1 elsewhere."""
    ahead = np.concatenate([np.zeros(OPENING_TOKENS, bool), is_answer])
    is_later = np.ones(len(is_answer), bool)
    for back in range(1, OPENING_TOKENS + 1):
        is_later &= ahead[OPENING_TOKENS - back : len(ahead) - back]
    return np.where(is_later, np.float32(1), np.float32(opening))
