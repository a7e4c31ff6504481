"""The training text: dialogues mixed from all generators, with and without system messages, of one
turn or many. A seed and a number of documents say all."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from examples.demo_model.data import phrasing
from examples.demo_model.data.dialogue import Document, Exchange, Message
from examples.demo_model.data.oddities import REPEAT, name_exchanges, odd_exchange
from examples.demo_model.data.question_bank import (
    DLLAMA_FILES,
    TALK_FILES,
    Fact,
    load_facts,
    normal,
)
from examples.demo_model.data.stories import story, story_exchange
from examples.demo_model.data.sums import sum_exchange
from examples.demo_model.data.world import world_exchange

PLAIN_SYSTEMS = (
    "You are a helpful assistant.", "You are dllama-demo, a small model.",
    "You are a friendly assistant.", "You are a helpful AI assistant.", "Be kind and helpful.",
    "You answer questions about dllama.", "You are a support agent for dllama.", "Help the user.",
    "You are an assistant. Answer in English.", "You are a helpful, honest assistant.",
    "You are a chat bot.", "Answer the questions of the user.",
    "You are a polite assistant who knows dllama well.", "You are an expert.", "Be precise.",
)  # fmt: skip
BRIEF_SYSTEMS = (
    "Answer briefly.", "Be brief.", "Give short answers.", "Answer in as few words as possible.",
    "Keep your answers short.", "You are a helpful assistant. Answer briefly.",
    "Short answers only.", "Answer in one short sentence.", "Be concise.",
    "You are a helpful assistant. Be concise.", "Reply with a few words.", "No long explanations.",
    "You are terse.",
)  # fmt: skip
BRIEF_WORDS = ("briefly", "in short", "short answer please", "in a few words", "a short answer",
               "be brief", "keep it short", "just the short answer")  # fmt: skip
SYSTEM_SHARE, BRIEF_SHARE = 0.25, 0.4
N_TURNS = {1: 0.669, 2: 0.13, 3: 0.09, 4: 0.05, 6: 0.04, 10: 0.016, 25: 0.004, 40: 0.001}
"""How many exchanges a dialogue has; the longest fill the context."""

FOLLOW_UPS: tuple[tuple[str, str, str], ...] = (
    ("worker.start", "root.workers",
     "and the root / and then / what about the root / now the root / what next"),
    ("worker.start", "worker.port",
     "and on another port / what about the port / with another port / which port"),
    ("worker.start", "worker.threads", "with fewer threads / and the threads / how many threads"),
    ("worker.start", "worker.needs_model",
     "does it need the model / and the model file / with the model"),
    ("root.start", "root.workers",
     "and with workers / with two workers / what about workers / and the workers"),
    ("root.start", "flag.port", "on another port / and the port / which port / with another port"),
    ("root.start", "flag.host",
     "and from another machine / for the whole network / can others reach it"),
    ("root.workers", "flag.shares",
     "and if one is slower / with unequal machines / can the shares differ"),
    ("about.dllama", "about.why", "why / what for / why should I use it / what is the advantage"),
    ("about.dllama", "root.start", "how do I start it / how do I run it / how do I begin"),
    ("about.root", "root.start", "how do I start it / how do I run one / the command"),
    ("about.worker", "worker.start",
     "how do I start one / how do I run it / the command / which command"),
    ("bench.command", "bench.json", "as json / and as json / can I have json"),
    ("api.chat", "field.stream", "and streaming / as a stream / can it stream"),
    ("api.stats", "stats.wait_ms", "what is wait_ms / and wait_ms / which node is slow"),
    ("about.models", "format.which", "in which format / which files / and the file format"),
    ("flag.api_key", "error.api_key", "and how do I send it / what do clients send / which header"),
    ("talk.joke", "talk.joke", "another one / one more / again / more / tell me another"),
    ("talk.how_are_you", "talk.i_am_fine",
     "I am fine too / good, thanks / fine / I am well / me too"),
)  # fmt: skip
"""What may be asked after a fact, which fact answers it, and how it is asked."""

SHARES = {
    "dllama": 0.70, "talk": 0.105, "world": 0.05, "sums": 0.045, "stories": 0.035, "odd": 0.065,
}  # fmt: skip
"""How often the exchanges of each generator come."""

FIRST_QUESTIONS = frozenset(
    {"about.dllama", "worker.start", "root.start", "about.self", "talk.hello"}
)
"""What newcomers ask first comes twice as often."""


class Writer:
    """Draws documents. Questions that are held out never come, however they are spelled."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.dllama = load_facts(DLLAMA_FILES)
        self.talk = [f for f in load_facts(TALK_FILES) if f.ask]
        self._by_id = {f.id: f for f in self.dllama + self.talk}
        self._held = tuple(normal(q) for f in self.dllama for q in f.held)
        self._weights = [_weight(f) for f in self.dllama]
        self._talk_weights = [_weight(f) for f in self.talk]
        self._makers: dict[str, Callable[[], Exchange]] = {
            "dllama": self.dllama_exchange,
            "talk": self.talk_exchange,
            "world": lambda: self._spelled(world_exchange(self._rng)),
            "sums": lambda: self._spelled(sum_exchange(self._rng)),
            "stories": lambda: self._spelled(story_exchange(self._rng)),
            "odd": lambda: odd_exchange(self._rng),
        }

    @property
    def topics(self) -> tuple[str, ...]:
        """Returns all possible topics of a question: facts, and the other kinds of exchanges."""
        return (*self._by_id, *SHARES)

    def documents(self, n: int) -> Iterator[Document]:
        """`n` documents, a few of them plain stories to be continued."""
        for _ in range(n):
            if self._rng.random() < 0.01:
                yield Document(text=story(self._rng))
            else:
                yield self.dialogue()

    def dialogue(self) -> Document:
        rng = self._rng
        n_turns = rng.choices(list(N_TURNS), list(N_TURNS.values()))[0]
        is_brief = False
        messages: list[Message] = []
        if rng.random() < SYSTEM_SHARE:
            is_brief = rng.random() < BRIEF_SHARE
            system = rng.choice(BRIEF_SYSTEMS if is_brief else PLAIN_SYSTEMS)
            messages.append(Message("system", system))
        for exchange in self.exchanges(n_turns):
            messages += self._turn(exchange, is_brief)
        return Document(tuple(messages))

    def exchanges(self, n: int) -> list[Exchange]:
        """`n` exchanges; in longer dialogues some depend on what was said before."""
        rng = self._rng
        found: list[Exchange] = []
        later: Exchange | None = None
        while len(found) < n:
            depends = rng.random() if found else 1.0
            if n > 1 and later is None and rng.random() < 0.08:
                told, later = name_exchanges(rng)
                found.append(self._spelled(told))
            elif later is not None and rng.random() < 0.3:
                found.append(self._spelled(later))
            elif depends < 0.06 and found[-1].says:
                last = found[-1]
                found.append(
                    self._spelled(Exchange(rng.choice(REPEAT), last.says, last.brief, last.topic))
                )
            elif depends < 0.3 and (follow := self._follow_up(found[-1].topic)):
                found.append(follow)
            elif depends > 0.9 and n > 1 and rng.random() < 0.5:
                found.append(self._fact_exchange(self._by_id[rng.choice(FOLLOW_UPS)[0]]))
            else:
                found.append(self.exchange())
        return found

    def exchange(self) -> Exchange:
        kind = self._rng.choices(list(SHARES), list(SHARES.values()))[0]
        found = self._makers[kind]()
        return found if found.topic else replace(found, topic=kind)

    def dllama_exchange(self) -> Exchange:
        return self._fact_exchange(self._rng.choices(self.dllama, self._weights)[0])

    def talk_exchange(self) -> Exchange:
        return self._fact_exchange(self._rng.choices(self.talk, self._talk_weights)[0])

    def is_held(self, asked: str) -> bool:
        """Whether a held-out question is in the text, whatever its case and punctuation."""
        text = normal(asked)
        return any(held in text for held in self._held)

    def _fact_exchange(self, fact: Fact) -> Exchange:
        rng = self._rng
        make = phrasing.talk if fact.id.startswith(("talk.", "refuse.")) else phrasing.ask
        asked = make(rng, fact)
        while self.is_held(asked):
            asked = make(rng, fact)
        return Exchange(asked, rng.choice(fact.says), fact.brief, fact.id)

    def _follow_up(self, topic: str) -> Exchange | None:
        found = [(to, asked.split(" / ")) for of, to, asked in FOLLOW_UPS if of == topic]
        if not found:
            return None
        to, asked = self._rng.choice(found)
        fact = self._by_id[to]
        text = phrasing.spelled(self._rng, self._rng.choice(asked))
        return Exchange(text, self._rng.choice(fact.says), fact.brief, fact.id)

    def _spelled(self, exchange: Exchange) -> Exchange:
        asked = phrasing.spelled(self._rng, exchange.asked)
        return Exchange(asked, exchange.says, exchange.brief, exchange.topic)

    def _turn(self, exchange: Exchange, is_brief: bool) -> tuple[Message, Message]:
        asked, rng = exchange.asked, self._rng
        if not is_brief and rng.random() < 0.03:
            is_brief = True
            asked = f"{asked.rstrip('?.! ')}, {rng.choice(BRIEF_WORDS)}"
        answer = exchange.brief if is_brief and exchange.brief else exchange.says
        return Message("user", asked, exchange.topic), Message("assistant", answer)


def _weight(fact: Fact) -> float:
    """Returns the weight of a fact: the more ways to ask for it, the more there is to learn."""
    n = 2.5 * len(fact.do) + len(fact.what) + len(fact.ask) + 12
    return n * (2 if fact.id in FIRST_QUESTIONS else 1)
