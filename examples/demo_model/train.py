"""Trains dllama-demo from nothing: data, tokenizer, model, GGUF. Goes on where it was interrupted.

    python -m examples.demo_model.train

Everything follows from the seed: the same settings on the same machine, with as many threads, give
the same files."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from tokenizers import Tokenizer

from dllama.qtypes import QType
from examples.demo_model.batches import (
    NO_TOPIC,
    AnswerCut,
    Corpus,
    encode_corpus,
    make_batch,
    plan_batches,
)
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import Document, Message, segments
from examples.demo_model.data.question_bank import DLLAMA_FILES, load_facts
from examples.demo_model.export import export_gguf
from examples.demo_model.model import Model, demo_config, tensors
from examples.demo_model.muon import Muon
from examples.demo_model.paths import OUT, WORK
from examples.demo_model.progress import TrainingLine
from examples.demo_model.tokenizer import tokenizer_metadata, train_tokenizer
from examples.demo_model.topics import TopicHead, TopicSettings, embeddings_of_topics

TOKENIZER_DOCUMENTS = 25_000
CHECKPOINT_S = 120.0
HELD_OUT_SHARE = 0.05  # how often, in steps of the whole, the held-out loss is printed
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that decide the result."""

    seed: int = 1
    n_documents: int = 200_000
    n_refine: int = 80_000  # documents after these, learned at a lower rate
    refine_rate: float = 6e-4
    micro_tokens: int = 3072  # of a batch, with padding
    micros: int = 2  # batches of a step, so that it sees documents of several lengths
    cut_share: float = 0.6  # of the one-turn documents that end within their answer
    cut_after: int = 12  # tokens of it that are left
    learning_rate: float = 2e-3
    warm_up: float = 0.03  # share of the steps
    final: float = 0.03  # share of the learning rate that is left at the end
    weight_decay: float = 0.1
    question_share: float = 0.02  # of the tokens that others wrote, which also count
    opening: float = 3.0  # weight of an answer's first tokens
    clip: float = 1.0
    topic: TopicSettings = field(default_factory=TopicSettings)


def learning_rate(settings: Settings, step: int, n_first: int, n_steps: int) -> float:
    """For the first `n_first` steps, and for those after them: linear warm-up, then a cosine down
    to the final share."""
    if step >= n_first:
        return settings.refine_rate * _wave(settings, step - n_first, n_steps - n_first)
    return settings.learning_rate * _wave(settings, step, n_first)


def _wave(settings: Settings, step: int, n_steps: int) -> float:
    n_warm = max(1, int(settings.warm_up * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    done = (step - n_warm) / max(1, n_steps - n_warm)
    wave = 0.5 * (1 + math.cos(math.pi * done))
    return settings.final + (1 - settings.final) * wave


def load_tokenizer(settings: Settings, work: Path) -> Tokenizer:
    path = work / f"tokenizer-{settings.seed}.json"
    if not path.exists():
        console.print("training the tokenizer")
        documents = Writer(settings.seed).documents(TOKENIZER_DOCUMENTS)
        train_tokenizer(s.text for d in documents for s in segments(d)).save(str(path))
    return Tokenizer.from_file(str(path))


def load_corpus(settings: Settings, tokenizer: Tokenizer, work: Path, max_len: int) -> Corpus:
    n_documents = settings.n_documents + settings.n_refine
    path = work / f"corpus-{settings.seed}-{n_documents}.npz"
    if not path.exists():
        console.print(f"writing {n_documents} documents")
        writer = Writer(settings.seed + 1)
        cut = AnswerCut(settings.cut_share, settings.cut_after, settings.seed)
        documents = writer.documents(n_documents)
        encode_corpus(tokenizer, documents, max_len, writer.topics, cut).save(path)
    return Corpus.load(path)


def held_out_corpus(tokenizer: Tokenizer, max_len: int) -> Corpus:
    """The held-out questions with their answers: never trained on, only measured."""
    documents = [
        Document((Message("user", question, fact.id), Message("assistant", fact.says[0])))
        for fact in load_facts(DLLAMA_FILES)
        for question in fact.held
    ]
    return encode_corpus(tokenizer, documents, max_len, Writer(0).topics)


@dataclass(frozen=True, slots=True)
class Measured:
    """Over a corpus of one-turn dialogues."""

    loss: float  # of an answer's token
    word_for_word: float  # share of the answers that greedy decoding would give so
    named: float  # share of the questions whose topic is named at their end


@torch.no_grad()
def measure(model: Model, head: TopicHead, corpus: Corpus) -> Measured:
    model.eval()
    lost, n_tokens, n_right, n_named = 0.0, 0.0, 0, 0
    for documents in plan_batches(corpus, 8192, 0):
        batch = make_batch(corpus, documents, question_share=0.0, opening=1.0, seed=0)
        with torch.autocast("cpu", torch.bfloat16):
            states, middle = model(batch.tokens)
            logits = model.logits(states.flatten(0, 1)[batch.at]).float()
            named = head(middle.flatten(0, 1)[batch.asked_at]).argmax(-1) == batch.topics
        losses = torch.nn.functional.cross_entropy(logits, batch.wanted, reduction="none")
        lost += float((losses * batch.weights).sum())
        n_tokens += float(batch.weights.sum())
        wrong = torch.zeros(len(documents))
        misses = (logits.argmax(-1) != batch.wanted) * batch.weights
        wrong.index_add_(0, batch.at // batch.tokens.shape[1], misses)
        n_right += int((wrong == 0).sum())
        after = batch.asked_at.diff(append=torch.zeros(1, dtype=torch.int64))
        ends = torch.nonzero(after != 1).flatten()  # of questions, then padding
        n_named += int(named[ends[: len(documents)]].sum())
    model.train()
    n = corpus.n_documents
    return Measured(lost / n_tokens, n_right / n, n_named / n)


def make_optimizers(
    model: Model, head: TopicHead, settings: Settings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.layers.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": [model.embed.weight], "weight_decay": settings.weight_decay},
        {"params": [*vectors, *head.parameters()], "weight_decay": 0.0},
    ]
    return [
        Muon(matrices, settings.learning_rate, settings.weight_decay),
        torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True),
    ]


class Training:
    """A model in training; `step` steps are done."""

    def __init__(self, settings: Settings, corpus: Corpus, vocab_size: int, work: Path) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.corpus = settings, corpus
        self.model = Model(demo_config(vocab_size))
        self.head = TopicHead(self.model.config.dim, corpus.n_topics)
        self.optimizers = make_optimizers(self.model, self.head, settings)
        cut = corpus.n_documents - settings.n_refine
        parts = [range(cut), range(cut, corpus.n_documents)]
        plans = [plan_batches(corpus, settings.micro_tokens, settings.seed, p) for p in parts if p]
        lengths = [len(plan) // settings.micros for plan in plans]
        self.n_first, self.n_steps = lengths[0], sum(lengths)
        self.batches = [
            batch
            for plan, n in zip(plans, lengths, strict=True)
            for batch in plan[: n * settings.micros]
        ]
        self.step = 0
        self.halfway: dict[str, torch.Tensor] = {}  # the weights after the first part
        self._path = work / "checkpoint.pt"

    def learn_words(self) -> None:
        """Trains the initial embeddings: the words that tell topics apart."""
        config, seed = self.model.config, self.settings.seed
        found = embeddings_of_topics(
            self.corpus, config.vocab_size, config.dim, self.settings.topic, seed
        )
        with torch.no_grad():
            self.model.embed.weight.copy_(found)

    def save(self) -> None:
        partial = self._path.with_suffix(".partial")
        state = {
            "settings": asdict(self.settings),
            "step": self.step,
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "halfway": self.halfway,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, partial)
        partial.replace(self._path)

    def resume(self) -> bool:
        """Takes up the last checkpoint, where there is one of the same settings."""
        if not self._path.exists():
            return False
        state = torch.load(self._path, weights_only=True)
        if state["settings"] != asdict(self.settings):
            console.print(f"{self._path} belongs to other settings; it is left aside")
            return False
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.halfway = state["halfway"]
        for optimizer, its_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)
        self.step = state["step"]
        return True

    def train_step(self) -> tuple[float, int]:
        """Makes one step of the optimizer; returns its loss and its tokens, without padding."""
        s = self.settings
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(s, self.step, self.n_first, self.n_steps)
        first = self.step * s.micros
        batches = [
            make_batch(self.corpus, documents, question_share=s.question_share, opening=s.opening,
                       seed=s.seed)
            for documents in self.batches[first : first + s.micros]
        ]  # fmt: skip
        total = sum(float(batch.weights.sum()) for batch in batches)
        n_asked = sum(int((batch.topics != NO_TOPIC).sum()) for batch in batches)
        loss_sum = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):
                states, middle = self.model(batch.tokens)
                losses = self.model.losses(states, batch.at, batch.wanted)
                named = self.head.loss(middle, batch, s.topic)
            loss = (losses * batch.weights).sum() / total
            torch.autograd.backward(loss + s.topic.weight * named / max(1, n_asked))
            loss_sum += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        if self.step == self.n_first:
            self.halfway = {k: v.clone() for k, v in self.model.state_dict().items()}
        return loss_sum, sum(batch.n_tokens for batch in batches)


def train(training: Training, held_out: Corpus, until_step: int) -> None:
    """Trains to the end, or to `until_step`, with checkpoints on the way."""
    every = max(1, int(HELD_OUT_SHARE * training.n_steps))
    saved_s = time.monotonic()
    with TrainingLine(console, training.n_steps, training.step) as line:
        while training.step < min(training.n_steps, until_step):
            loss, n_tokens = training.train_step()
            line.update(training.step, loss, n_tokens)
            if training.step % every == 0 or training.step == training.n_steps:
                found = measure(training.model, training.head, held_out)
                line.note(
                    f"step {training.step}: loss {line.loss:.3f}, held-out loss {found.loss:.3f}, "
                    f"answers word for word {found.word_for_word:.1%}, topics {found.named:.1%}"
                )
            if time.monotonic() - saved_s > CHECKPOINT_S:
                training.save()
                saved_s = time.monotonic()
    training.save()


def averaged(training: Training) -> Model:
    """The mean of the weights at the end of both parts: better than either, as the mean of two
    ends of one path often is (Izmailov et al. 2018, arXiv 1803.05407)."""
    model = Model(training.model.config)
    last = training.model.state_dict()
    first = training.halfway or last
    model.load_state_dict({k: (first[k] + v) / 2 for k, v in last.items()})
    return model


def write_models(training: Training, tokenizer: Tokenizer, out: Path, work: Path) -> None:
    """The Q8_0 file to ship, and its F16 twin for tests."""
    arrays = {name: tensor.numpy() for name, tensor in tensors(averaged(training)).items()}
    metadata = tokenizer_metadata(tokenizer)
    twin = work / out.name.replace("q8_0", "f16")
    for path, qtype in ((out, QType.Q8_0), (twin, QType.F16)):
        export_gguf(path, training.model.config, arrays, metadata, qtype)
        console.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    settings = Settings(seed=args.seed, n_documents=args.documents, n_refine=args.refine)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(settings, args.work)
    max_len = demo_config(0).max_seq_len
    corpus = load_corpus(settings, tokenizer, args.work, max_len)
    training = Training(settings, corpus, tokenizer.get_vocab_size(), args.work)
    if not args.fresh and training.resume():
        console.print(f"going on after step {training.step}")
    else:
        console.print("learning words")
        training.learn_words()
    if args.compile:
        training.model.compile_layers()
    n_parameters = sum(p.numel() for p in training.model.parameters())
    console.print(
        f"{n_parameters / 1e6:.2f} million parameters, {tokenizer.get_vocab_size()} tokens of "
        f"vocabulary, {corpus.n_documents} documents, {len(corpus.ids) / 1e6:.1f} million tokens, "
        f"{training.n_steps} steps"
    )
    started_s = time.monotonic()
    train(training, held_out_corpus(tokenizer, max_len), args.until_step or training.n_steps)
    write_models(training, tokenizer, args.out, args.work)
    facts = {
        "settings": asdict(settings),
        "parameters": n_parameters,
        "documents": corpus.n_documents,
        "tokens": len(corpus.ids),
        "steps": training.step,
        "minutes_of_this_run": round((time.monotonic() - started_s) / 60, 1),
    }
    (args.work / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    console.print("evaluate it with: python -m examples.demo_model.evaluate --update-card")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo_model.train",
        description="Train dllama-demo from nothing; an interrupted run is gone on with.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = Settings()
    parser.add_argument("--out", type=Path, default=OUT, help="the Q8_0 GGUF to write")
    parser.add_argument("--work", type=Path, default=WORK, help="for data and checkpoints")
    parser.add_argument("--documents", type=int, default=defaults.n_documents, help="to train on")
    parser.add_argument(
        "--refine", type=int, default=defaults.n_refine, help="more, at a lower learning rate"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--fresh", action="store_true", help="do not go on with a checkpoint")
    parser.add_argument(
        "--compile", action="store_true", help="a fifth faster; needs a C++ compiler"
    )
    parser.add_argument("--until-step", type=int, default=0, help="stop early; 0: at the end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
