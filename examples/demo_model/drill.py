"""The second part of the training: questions, very many of them, each with the beginning of its
answer only. By now the answers are known by heart, and what is left to learn is which one is asked
for.

Beside beginning the answer, the model has to name the topic at every token of the question, through
a head that is thrown away in the end: what is asked is thus learned from some ten tokens of a
question and not only from the one before its answer. Some words are replaced by random ones, so
that no single word decides alone. Every few steps come ordinary documents, so that nothing else is
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F  # noqa: N812 - everybody calls it F

from examples.demo_model.batches import PAD
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import Document, Exchange, Message, segments
from examples.demo_model.model import Model

FIRST_WORD_TOKEN = 259  # in the vocabulary: after special tokens and single bytes
ELSEWHERE = -100  # no topic is named here
OTHER_SHARE = 0.12  # questions about anything but dllama


@dataclass(frozen=True, slots=True)
class DrillSettings:
    """What decides the result of the second part."""

    n_questions: int = 96_000
    per_batch: int = 112  # questions
    answer_tokens: int = 12  # of an answer that are asked for
    learning_rate: float = 1.5e-3
    final: float = 0.02  # share of it that is left at the end
    misread: float = 0.15  # most of a question's tokens that are replaced
    topic_weight: float = 0.5
    smoothing: float = 0.05
    ordinary_every: int = 4  # steps between batches of ordinary documents


@dataclass(frozen=True, slots=True)
class DrillBatch:
    """Questions side by side, padded behind."""

    tokens: torch.Tensor  # (B, T) int64
    wanted: torch.Tensor  # (B, T) int64: the next token of an answer, ELSEWHERE where none is asked
    topics: torch.Tensor  # (B, T) int64, ELSEWHERE outside of questions


class Driller:
    """Draws batches of questions; a seed decides which."""

    def __init__(self, tokenizer: Tokenizer, settings: DrillSettings, seed: int) -> None:
        self._tokenizer, self._settings = tokenizer, settings
        self._writer = Writer(seed)
        self._rng = np.random.default_rng(seed)
        facts = [fact.id for fact in self._writer.dllama + self._writer.talk]
        self._numbers = {name: i for i, name in enumerate(facts)}
        self.n_topics = len(facts)

    def batches(self) -> Iterator[DrillBatch]:
        s = self._settings
        for _ in range(s.n_questions // s.per_batch):
            yield self._batch([self._question() for _ in range(s.per_batch)])

    def _question(self) -> Exchange:
        if self._rng.random() < OTHER_SHARE:
            return self._writer.exchange()
        return self._writer.dllama_exchange()

    def _batch(self, exchanges: list[Exchange]) -> DrillBatch:
        documents = [
            Document((Message("user", e.asked), Message("assistant", e.says))) for e in exchanges
        ]
        pieces = [segments(document) for document in documents]
        encoded = iter(self._tokenizer.encode_batch_fast([t for part in pieces for t, _ in part]))
        rows = []
        for exchange, part in zip(exchanges, pieces, strict=True):
            found = [(next(encoded).ids, is_answer) for _, is_answer in part]
            asked = [i for ids, is_answer in found[:2] if not is_answer for i in ids]
            answer = next(ids for ids, is_answer in found if is_answer)
            topic = self._numbers.get(exchange.topic, ELSEWHERE)
            rows.append((asked, answer[: self._settings.answer_tokens + 1], topic))
        return self._padded(rows)

    def _padded(self, rows: list[tuple[list[int], list[int], int]]) -> DrillBatch:
        width = -(-max(len(asked) + len(answer) for asked, answer, _ in rows) // 8) * 8
        tokens = np.full((len(rows), width), PAD, np.int64)
        wanted = np.full((len(rows), width), ELSEWHERE, np.int64)
        topics = np.full((len(rows), width), ELSEWHERE, np.int64)
        for row, (asked, answer, topic) in enumerate(rows):
            n = len(asked)
            tokens[row, :n] = self._misread(np.array(asked))
            tokens[row, n : n + len(answer)] = answer
            wanted[row, n - 1 : n - 1 + len(answer)] = answer
            topics[row, 3:n] = topic  # nothing is asked in <|im_start|>, user, line feed
        return DrillBatch(*(torch.from_numpy(a) for a in (tokens, wanted, topics)))

    def _misread(self, asked: np.ndarray) -> np.ndarray:
        """The question (n,) with some of its words exchanged; the frame around it stays."""
        is_word = (asked >= FIRST_WORD_TOKEN) & (np.arange(len(asked)) < len(asked) - 5)
        share = self._rng.random() * self._settings.misread
        hit = is_word & (self._rng.random(len(asked)) < share)
        last = self._tokenizer.get_vocab_size()
        return np.where(hit, self._rng.integers(FIRST_WORD_TOKEN, last, len(asked)), asked)


def drill_loss(
    model: Model, topic_head: torch.nn.Linear, batch: DrillBatch, settings: DrillSettings
) -> torch.Tensor:
    """The mean loss of an answer's token, and of naming the topic."""
    with torch.autocast("cpu", torch.bfloat16):
        states = model(batch.tokens).flatten(0, 1)
        at = torch.nonzero(batch.wanted.flatten() != ELSEWHERE).flatten()
        logits = model.logits(states[at])
        asked = torch.nonzero(batch.topics.flatten() != ELSEWHERE).flatten()
        guesses = topic_head(states[asked])
    written = F.cross_entropy(logits.float(), batch.wanted.flatten()[at])
    named = F.cross_entropy(
        guesses.float(), batch.topics.flatten()[asked], label_smoothing=settings.smoothing
    )
    return written + settings.topic_weight * named
