"""The events of an answer, in the order in which they come: what the engine's outputs are read to,
and what every API writes its streams and its whole answers from. Knows no API and no JSON.

For each choice: `Start`, then `Progress` where the request wants it, then the parts (`Text`,
`Thought`, `ToolCall`, `ToolArguments`, `Citation`), then `Finish`. One `Usage` ends the answer.

`index` is the number of the choice. `probs` are the tokens whose probabilities can be told by now,
if they were asked for. `usage` is that of the choice so far, if the request wants it with every
part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dllama.requests import FinishReason, TokenProbs


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """The probabilities of a token whose text begins at `offset` of the answer, in characters."""

    probs: TokenProbs
    offset: int


Probs = Sequence[AnswerToken]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and times of one choice, or of all: tokens are added, times are the slowest's.

    A prompt that several choices share counts once. The first token belongs to the prompt's time,
    so `n_timed` counts the tokens after it. `seed` gives the first choice again.
    """

    n_prompt: int
    n_cached: int
    n_completion: int
    n_timed: int
    n_drafted: int
    n_accepted: int
    prompt_s: float
    completion_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class Start:
    """The engine has the prompt. `slot` is the choice's number among those that are open."""

    index: int
    n_prompt: int
    slot: int | None


@dataclass(frozen=True, slots=True)
class Progress:
    """`n_computed` tokens of the prompt are in the KV cache."""

    index: int
    n_prompt: int
    n_cached: int
    n_computed: int
    elapsed_s: float
    usage: Usage | None = None


@dataclass(slots=True)  # not frozen: one is made for every token, and freezing takes 0.6 us
class Text:
    """More of the answer's text. `tokens` are the ids since the last part, where the text is not
    split into thoughts and calls."""

    index: int
    text: str
    tokens: Sequence[int] = ()
    probs: Probs = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """More of the model's thoughts."""

    index: int
    text: str
    probs: Probs = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The beginning of the choice's tool call number `call`."""

    index: int
    call: int
    id: str
    name: str
    probs: Probs = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ToolArguments:
    """More of a call's arguments, as JSON. `is_end`: they are complete."""

    index: int
    call: int
    text: str
    is_end: bool
    probs: Probs = ()
    usage: Usage | None = None


class Source(NamedTuple):
    """The tool call of the conversation that a cited text is from, and which of its results:
    numbers from 0, as the model counts them. Documents are the results of call 0."""

    call: int
    results: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Citation:
    """The characters `begin` to `end` of the answer's text, `text`, rest on `sources`. It comes
    after them."""

    index: int
    begin: int
    end: int
    text: str
    sources: tuple[Source, ...]
    probs: Probs = ()
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """A choice is complete. `stopping_word` is the stop string that ended it; `has_calls`: it made
    a complete tool call; `slot` is None if the choice has left its slot already."""

    index: int
    reason: FinishReason
    usage: Usage
    has_calls: bool = False
    stopping_word: str | None = None
    tokens: Sequence[int] = ()
    probs: Probs = ()
    slot: int | None = None


Part = Text | Thought | ToolCall | ToolArguments | Citation
Event = Start | Progress | Part | Finish | Usage


@dataclass(slots=True)
class Call:
    """A tool call, put together from its events."""

    id: str
    name: str
    arguments: str = ""
    is_complete: bool = False


@dataclass(slots=True)
class Message:
    """A choice, put together from its events. Calls that broke off are left out of `calls`:
    their arguments would not parse."""

    texts: list[str] = field(default_factory=list)
    thought_texts: list[str] = field(default_factory=list)
    made: list[Call] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    probs: list[AnswerToken] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def thoughts(self) -> str:
        return "".join(self.thought_texts)

    @property
    def calls(self) -> list[Call]:
        return [call for call in self.made if call.is_complete]

    def add(self, event: Event) -> None:
        if isinstance(event, Text):
            self.texts.append(event.text)
            self.tokens += event.tokens
        elif isinstance(event, Thought):
            self.thought_texts.append(event.text)
        elif isinstance(event, ToolCall):
            self.made.append(Call(event.id, event.name))
        elif isinstance(event, ToolArguments):
            self.made[event.call].arguments += event.text
            self.made[event.call].is_complete = event.is_end
        elif isinstance(event, Citation):
            self.citations.append(event)
        elif isinstance(event, Finish):
            self.finish = event
            self.tokens += event.tokens
        else:
            return
        self.probs += event.probs


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """All choices of a complete answer, in order."""

    choices: list[Message]
    usage: Usage

    @classmethod
    def of(cls, events: Iterable[Event]) -> WholeAnswer:
        """Puts the events of a complete answer together."""
        choices: dict[int, Message] = {}
        usage = None
        for event in events:
            if isinstance(event, Usage):
                usage = event
            else:
                choices.setdefault(event.index, Message()).add(event)
        assert usage is not None, "the events of a complete answer end with its usage"
        return cls([choices[index] for index in sorted(choices)], usage)
