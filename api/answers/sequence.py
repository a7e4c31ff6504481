"""One sequence of an engine, read as text: decoding, stop strings, counts and times."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from itertools import repeat

from api.answers.plan import AnswerPlan
from api.answers.stop import StopScanner, StopTable
from api.meter import Meter
from api.replies.logprobs import Json, LogprobStyle, ToldTokens
from api.served_model import ServedModel
from dllama.errors import ClusterError
from dllama.requests import FinishReason, Output, Submit, TokenProbs


class TextSequence:
    """An answer while it comes. `finish` is None until it is complete, and `n_computed` counts the
    tokens whose keys and values are known, where the request wants to hear of its progress.

    Nothing is produced after a stop string: the engine is told to forget the sequence on the
    token that completes it, and tokens that were under way are not counted.
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
        self.tokens: list[int] = []  # of the answer, as far as they are counted
        self.submitted_at = 0.0  # these three in seconds of time.perf_counter
        self.first_at: float | None = None
        self.last_at = 0.0
        self.model = model
        self.slot: int | None = None  # its number while it is open
        self.n_drafted = self.n_accepted = 0  # tokens that were guessed, and that came true
        self._engine = model.engine
        self._submit = submit
        self.reader = plan.reader()  # tells its text apart; None where all of it is the answer
        self._decoder = (
            model.tokenizer.decoder(skip_special=True, kept=plan.kept)
            if plan.kept
            else model.tokenizer.decoder(skip_special=True)
        )
        self._scanner = StopScanner(stops)
        self._meter = meter
        self._outputs: AsyncIterator[Output] | None = None
        self._interruption: ClusterError | None = None
        self._n_decoded = self._n_shown = 0  # characters of all tokens, and those that were read
        self._told: ToldTokens | None = None
        if submit.sampling.n_probs is not None:
            is_post = submit.sampling.post_sampling_probs
            self._told = ToldTokens(model.tokenizer, is_post=is_post)

    def start(self) -> None:
        """Hands the prompt to the engine; raises EngineBusy."""
        self.submitted_at = time.perf_counter()
        self._outputs = self._engine.submit(self._submit)
        self.slot = self._meter.opened(self)

    @property
    def id(self) -> str:
        return self._submit.id

    @property
    def max_tokens(self) -> int | None:
        return self._submit.max_tokens

    @property
    def stopping_word(self) -> str | None:
        """The stop string that ended the answer, None if something else did."""
        return self._scanner.found

    async def read(self) -> str:
        """The next piece of text; "" only together with `finish`, or with news of the prompt
        where the request wants them. Raises ClusterError.

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
                break
            self._clock(output)
            if self._submit.wants_progress and output.n_computed > self.n_computed:
                self.n_computed = output.n_computed
                if not output.tokens and output.finish is None:
                    return ""
            probs = output.probs or repeat(None)
            pieces = list(map(self._take, output.tokens, probs))
            if self._scanner.found is not None:
                self._engine.abort(self._submit.id)
                self.finish = FinishReason.STOP
            elif output.finish is not None:
                pieces += [self._scanner.push(self._decoder.flush()), self._scanner.flush()]
                stopped = self._scanner.found is not None
                self.finish = FinishReason.STOP if stopped else output.finish
            text = "".join(pieces)
            self._n_shown += len(text)
            if text:
                return text
        return ""

    @property
    def seed(self) -> int:
        """The seed that gives the same answer again."""
        return self._submit.sampling.seed

    def take_logprobs(self, style: LogprobStyle | None, *, or_empty: bool = False) -> Json | None:
        """How likely the tokens were whose text has been read since the last call; at the end,
        all but those of a stop string. None without a style or, unless `or_empty`, tokens."""
        if self._told is None or style is None:
            return None
        is_all = self.finish is not None and self._scanner.found is None
        told = self._told.take(self._n_shown, is_all=is_all)
        return self._told.dressed(told, style) if told or or_empty else None

    def _take(self, token: int, probs: TokenProbs | None) -> str:
        if self._scanner.found is not None:
            return ""
        self.n_completion += 1
        self.tokens.append(token)
        if self._told is not None and probs is not None:
            self._told.note(probs, self._n_decoded)
        text = self._decoder.push([token])
        self._n_decoded += len(text)
        return self._scanner.push(text)

    def _clock(self, output: Output) -> None:
        now = time.perf_counter()
        self.n_cached = max(self.n_cached, output.n_cached)
        self.n_drafted += output.n_drafted
        self.n_accepted += output.n_accepted
        if self.first_at is None:
            if output.tokens or output.finish:
                self.first_at = self.last_at = now
                self._meter.first_token(now - self.submitted_at)
        elif output.tokens:
            self._meter.gap((now - self.last_at) / len(output.tokens))
            self.last_at = now

    def interrupt(self, reason: str) -> None:
        """Ends the sequence in the engine; who reads it hears a ClusterError with the reason."""
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
