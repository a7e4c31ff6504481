"""The sequences of one request, read together as one stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.answers.events import Event, Finish, Start
from api.answers.plan import PLAIN, AnswerPlan
from api.answers.sequence import AnswerSequence, usage_of
from api.answers.stop import StopTable
from api.meter import Meter
from api.requests.engine_options import may_shift
from api.requests.generation import GenerationRequest
from api.served_model import ServedModel
from dllama.logs.context import request_id
from dllama.requests import SamplingParams, Submit


class AnswerStream:
    """Every sequence of a request, of which `n` at a time share a prompt."""

    def __init__(self, sequences: Sequence[AnswerSequence], n: int) -> None:
        self.sequences = sequences
        self._n = n
        self._reads: dict[asyncio.Task[list[Event]], AnswerSequence] = {}

    @property
    def model(self) -> ServedModel:
        return self.sequences[0].model

    def start(self) -> list[Start]:
        """Hands all of them to the engine; EngineBusy leaves none there."""
        try:
            return [sequence.start() for sequence in self.sequences]
        except BaseException:
            self.close()
            raise

    @property
    def is_engine_ready(self) -> bool:
        """Whether the engine computes; else all of them wait for it."""
        return self.model.engine.state.state == "ready"

    @property
    def _is_finished(self) -> bool:
        all_read = not self._reads
        return all_read and all(sequence.finish is not None for sequence in self.sequences)

    async def next(self) -> list[Event] | None:
        """Returns the next events of any sequence; an empty list while text is held back. The last
        events are a `Finish` and the `Usage`; None after that. May be cancelled and called again.
        Raises ClusterError."""
        if len(self.sequences) == 1:  # the usual case needs no tasks
            only = self.sequences[0]
            if only.finish is not None:
                return None
            events = await only.read()
        else:
            task = await self._first_read()
            if task is None:
                return None
            del self._reads[task]
            events = task.result()
        if events and type(events[-1]) is Finish and self._is_finished:
            events.append(usage_of(self.sequences, self._n))
        return events

    async def _first_read(self) -> asyncio.Task[list[Event]] | None:
        """Returns the task of the first sequence that has events, None if all are finished."""
        waited_for = set(map(id, self._reads.values()))
        for sequence in self.sequences:
            if sequence.finish is None and id(sequence) not in waited_for:
                task = asyncio.create_task(sequence.read())
                task.add_done_callback(see_error)
                self._reads[task] = sequence
        if not self._reads:
            return None
        done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in self._reads if task in done)

    def close(self) -> None:
        """Frees what is unfinished in the engine, at once."""
        for task in self._reads:
            task.cancel()
        for sequence in self.sequences:
            sequence.close()


def see_error(task: asyncio.Task[list[Event]]) -> None:
    """Marks a task's error as seen: of several sequences that fail together the client hears one
    error, and asyncio would log the others as never retrieved."""
    if not task.cancelled():
        task.exception()


def make_answers(
    model: ServedModel,
    request: GenerationRequest,
    prompts: Sequence[list[int]],
    samplings: Sequence[SamplingParams],
    answer_id: str,
    meter: Meter,
    plan: AnswerPlan = PLAIN,
) -> AnswerStream:
    """Returns a sequence for each prompt and each of its n samplings, in OpenAI's order."""
    options = request.options
    stops = StopTable(request.stops)
    stop_ids = [] if request.ignore_eos else list(model.stop_ids)
    # Nothing is read without drawing a token: for 0 it is drawn and not told.
    max_tokens = 1 if request.max_tokens == 0 else request.max_tokens
    sequences: list[AnswerSequence] = []
    for tokens in prompts:
        for sampling in samplings:
            index = len(sequences)
            submit = Submit(
                f"{answer_id}-{index}", tokens, sampling, stop_ids, max_tokens,
                cache_prompt=options.cache_prompt, session_id=options.session_id,
                deadline_s=options.timeout_s, context_shift=may_shift(model, options),
                n_keep=options.n_keep or 0, wants_progress=request.return_progress,
                grammar=plan.grammar, draft_max=options.draft_max, draft_min=options.draft_min,
                draft_p_min=options.draft_p_min, request_id=request_id(),
            )  # fmt: skip
            sequences.append(AnswerSequence(index, model, submit, stops, meter, plan))
    return AnswerStream(sequences, request.n)
