"""One sequence of an engine, read as events: decoding, stop strings, thoughts and tool calls told
apart, counts and times."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import repeat

from api.answers.by_token import parts_by_token
from api.answers.events import AnswerToken, Event, Finish, Part, Probs, Progress, Start, Text, Usage
from api.answers.plan import AnswerPlan
from api.answers.stop import StopScanner, StopTable
from api.meter import Meter
from api.served_model import ServedModel
from dllama.errors import ClusterError
from dllama.requests import FinishReason, Output, SamplingParams, Submit, TokenProbs


class AnswerSequence:
    """One choice of an answer while it is generated. `finish` is None until it is complete.
    `n_computed` counts the tokens in the KV cache, if the request wants its progress.

    Nothing is produced after a stop string: the engine is told to abort the sequence on the token
    that completes it, and tokens that were under way are not counted.
    """

    def __init__(
        self,
        index: int,
        model: ServedModel,
        submit: Submit,
        stops: StopTable,
        meter: Meter,
        plan: AnswerPlan,
    ) -> None:
        self.index = index
        self.finish: FinishReason | None = None
        self.n_prompt = len(submit.tokens)
        self.n_cached = 0
        self.n_computed = 0
        self.n_completion = 0
        self.submitted_at = 0.0  # these three in seconds of time.monotonic
        self.first_at: float | None = None
        self.last_at = 0.0
        self.waited_s = 0.0  # in the engine, before the first of it was computed
        self.model = model
        self.slot: int | None = None  # its number while it is open
        self.n_drafted = self.n_accepted = 0  # tokens that were guessed, and that came true
        self._engine = model.engine
        self._submit = submit
        self._scanner = StopScanner(stops)
        # None where all of the text is the answer
        self._reader = plan.reader(index, self._scanner)
        self._parts: list[Part] = []  # of the reader; no event has told them yet
        self._rules = plan.line_rules()
        self._tells_usage = plan.tells_usage
        self._is_silent = plan.is_silent
        self._tells_progress = submit.wants_progress
        self._decoder = (
            model.tokenizer.decoder(skip_special=True, kept=plan.kept)
            if plan.kept
            else model.tokenizer.decoder(skip_special=True)
        )
        self._meter = meter
        self._outputs: AsyncIterator[Output] | None = None
        self._interruption: ClusterError | None = None
        self._n_decoded = self._n_shown = 0  # characters of all tokens, and those that were read
        self._new_tokens: list[int] = []  # no event has told them yet
        self._has_probs = submit.sampling.n_probs is not None
        # Text that passes through as it is, which is most, takes a shorter way.
        self._is_plain = not (self._reader or self._rules or self._has_probs or self._tells_usage)
        self._waiting: list[AnswerToken] = []  # no event has told their probabilities yet

    def start(self) -> Start:
        """Hands the prompt to the engine; raises EngineBusy."""
        self.submitted_at = time.monotonic()
        self._outputs = self._engine.submit(self._submit)
        self.slot = self._meter.opened(self)
        return Start(self.index, self.n_prompt, self.slot)

    @property
    def id(self) -> str:
        return self._submit.id

    @property
    def max_tokens(self) -> int | None:
        return self._submit.max_tokens

    @property
    def sampling(self) -> SamplingParams:
        return self._submit.sampling

    @property
    def seed(self) -> int:
        """Returns the seed that gives the same answer again."""
        return self.sampling.seed

    async def read(self) -> list[Event]:
        """The next events, the last of them a `Finish` if the sequence is complete. None where
        the newest text may still become a mark or a call. Raises ClusterError.

        A cancelled read loses nothing: the next one continues.
        """
        assert self._outputs is not None, "start() comes first"
        while self.finish is None:
            try:
                output = await anext(self._outputs)
            except StopAsyncIteration:  # aborted from elsewhere
                if self._interruption is not None:
                    raise self._interruption from None
                self.finish = FinishReason.ABORT
                self._end_parts()
                break
            self._clock(output)
            progress = self._progress(output) if self._tells_progress else []
            text = self._text_of(output)
            if self._reader is None:
                self._n_shown += len(text)
            else:
                self._n_shown = self._n_decoded - self._scanner.n_open
            if text or progress:
                return [*progress, *(self._events(text) if text or self.finish else [])]
        return self._events("")

    def _text_of(self, output: Output) -> str:
        """Returns the text that an output adds, which a reader has read to parts; sets `finish` if
        it is the last."""
        text = "".join(map(self._take, output.tokens, output.probs or repeat(None)))
        if self._is_over:
            if self._scanner.found is None:
                self._end_parts()
            self._engine.abort(self._submit.id)
            self.finish = FinishReason.STOP
        elif output.finish is not None:
            text += self._passed(self._decoder.flush())
            text += "" if self._reader else self._scanner.flush()
            self._end_parts()
            stopped = self._scanner.found is not None
            self.finish = FinishReason.STOP if stopped else output.finish
            if self._is_silent:
                text, self.finish = "", FinishReason.LENGTH
        return text

    def _take(self, token: int, probs: TokenProbs | None) -> str:
        if self._is_silent or self._is_over:
            return ""
        self.n_completion += 1
        self._new_tokens.append(token)
        if self._has_probs and probs is not None:
            self._waiting.append(AnswerToken(probs, self._n_decoded))
        text = self._decoder.push([token])
        self._n_decoded += len(text)
        return self._passed(text)

    @property
    def _is_over(self) -> bool:
        """True once the text has ended by what it says."""
        return self._scanner.found is not None if self._reader is None else self._reader.is_over

    def _passed(self, text: str) -> str:
        """Returns the text that is certain to stay; with a reader, all text, read to parts."""
        if self._reader is None:
            return self._scanner.push(text)
        self._parts += self._reader.push(text)
        return text

    def _end_parts(self) -> None:
        """Has the reader give what it held back: no more text comes."""
        if self._reader is not None:
            self._parts += self._reader.finish()

    def _events(self, text: str) -> list[Event]:
        """Returns the parts of more text; at the end also what was held back, and the `Finish`."""
        if self._is_plain and self.finish is None:
            tokens, self._new_tokens = self._new_tokens, []
            return [Text(self.index, text, tokens)]
        if self._rules is not None:
            text = self._ruled(text)
        parts: list[Part] = []
        if self._reader is not None:
            parts, self._parts = self._parts, []
        elif text and self._has_probs:
            told = self._told_probs()
            parts = [*parts_by_token(self.index, text, told, self._n_shown - len(text))]
            del self._new_tokens[: len(told)]
        elif text:
            parts = [Text(self.index, text, self._told_tokens())]
        if parts and self._has_probs and self._reader is not None:
            parts[0] = replace(parts[0], probs=self._told_probs())
        if parts and self._tells_usage:
            parts = [replace(part, usage=self.usage()) for part in parts]
        events: list[Event] = [*parts]
        if self.finish is not None:
            events.append(self._finished(self.finish))
        return events

    def _ruled(self, text: str) -> str:
        """Returns the part of a text that the line rules let through; ends the sequence if they
        do."""
        rules = self._rules
        assert rules is not None
        kept = rules.push(text, self.last_at - (self.first_at or self.last_at))
        if rules.has_ended:
            if self.finish is None:
                self.close()
            self.finish = FinishReason.LENGTH
        return kept if self.finish is None else kept + rules.flush()

    def _finished(self, reason: FinishReason) -> Finish:
        return Finish(
            self.index,
            reason,
            self.usage(),
            has_calls=self._reader is not None and self._reader.has_calls,
            stopping_word=self._scanner.found,
            tokens=self._told_tokens(),
            probs=self._told_probs(),
            slot=self.slot,
        )

    def _told_tokens(self) -> list[int]:
        told, self._new_tokens = self._new_tokens, []
        return told

    def _told_probs(self) -> Probs:
        """Returns the tokens whose text was read since the last call; at the end, all but those of
        a stop string."""
        n = len(self._waiting)
        if self.finish is None or self._scanner.found is not None:
            n = sum(token.offset < self._n_shown for token in self._waiting)
        told, self._waiting = self._waiting[:n], self._waiting[n:]
        return told

    def _progress(self, output: Output) -> list[Event]:
        """Returns the progress of the prompt: first what was found in the cache, and at the first
        token all of it."""
        told: list[Event] = []
        if self.n_computed == 0:
            self.n_computed = self.n_cached
            told.append(self._progress_at(0.0))
        n_computed = min(output.n_computed, self.n_prompt)
        if output.tokens:
            self._tells_progress = False  # the prompt is read
        if n_computed > self.n_computed:
            self.n_computed = n_computed
            told.append(self._progress_at(time.monotonic() - self.submitted_at))
        return told

    def _progress_at(self, elapsed_s: float) -> Progress:
        usage = None
        if self._tells_usage:
            usage = replace(
                self.usage(), n_prompt=self.n_computed, prompt_s=elapsed_s, n_completion=0,
                n_timed=0, completion_s=0.0,
            )  # fmt: skip
        return Progress(self.index, self.n_prompt, self.n_cached, self.n_computed, elapsed_s, usage)

    def usage(self) -> Usage:
        """Returns the sequence's tokens and times so far."""
        return usage_of([self], 1)

    def _clock(self, output: Output) -> None:
        now = time.monotonic()
        if output.n_cached > self.n_cached:
            self.n_cached = output.n_cached
        self.n_drafted += output.n_drafted
        self.n_accepted += output.n_accepted
        if self.first_at is None:
            if output.tokens or output.finish:
                self.first_at = self.last_at = now
                self.waited_s = output.waited_s
                self._meter.first_token(now - self.submitted_at)
        elif output.tokens:
            self._meter.gap((now - self.last_at) / len(output.tokens))
            self.last_at = now

    def interrupt(self, reason: str) -> None:
        """Ends the sequence in the engine; its reader gets a ClusterError with the reason."""
        if self.finish is None and self._outputs is not None:
            self._interruption = ClusterError(reason)
            self._engine.abort(self._submit.id)

    def close(self) -> None:
        """Frees the sequence in the engine if it is not finished; may be called again."""
        if self.slot is not None:
            self._meter.closed(self.slot)
            self.slot = None
        if self.finish is None and self._outputs is not None:
            self._engine.abort(self._submit.id)
            self.finish = FinishReason.ABORT


def usage_of(sequences: Sequence[AnswerSequence], n: int) -> Usage:
    """Returns the usage of sequences of which `n` at a time share a prompt."""
    firsts = sequences[::n]
    times = [(s.submitted_at, s.first_at or s.submitted_at, s.last_at) for s in sequences]
    return Usage(
        n_prompt=sum(s.n_prompt for s in firsts),
        n_cached=sum(s.n_cached for s in firsts),
        n_completion=sum(s.n_completion for s in sequences),
        n_timed=sum(max(0, s.n_completion - 1) for s in sequences),
        n_drafted=sum(s.n_drafted for s in sequences),
        n_accepted=sum(s.n_accepted for s in sequences),
        prompt_s=max(first - submitted for submitted, first, _ in times),
        completion_s=max(max(0.0, last - first) for _, first, last in times),
        seed=sequences[0].seed,
    )
