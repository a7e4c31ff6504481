"""The sequences of one request, read together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.answers.plan import PLAIN, AnswerPlan
from api.answers.sequence import TextSequence
from api.answers.stop import StopTable
from api.meter import Meter
from api.requests.generation import GenerationRequest
from api.requests.prompting import may_shift
from api.served_model import ServedModel
from dllama.requests import SamplingParams, Submit


class Answers:
    """Every sequence of a request; `next` gives what any of them has to say."""

    def __init__(self, sequences: Sequence[TextSequence]) -> None:
        self.sequences = sequences
        self._reads: dict[asyncio.Task[str], TextSequence] = {}

    def start(self) -> None:
        """Hands all of them to the engine or none: EngineBusy leaves nothing behind."""
        try:
            for sequence in self.sequences:
                sequence.start()
        except BaseException:
            self.close()
            raise

    @property
    def is_finished(self) -> bool:
        all_read = not self._reads
        return all_read and all(sequence.finish is not None for sequence in self.sequences)

    async def next(self) -> tuple[TextSequence, str] | None:
        """A sequence and its next piece of text, which is "" only if it has just finished; None
        after the end of all. May be cancelled and called again. Raises ClusterError."""
        if len(self.sequences) == 1:  # the usual case needs no tasks
            only = self.sequences[0]
            return (only, await only.read()) if only.finish is None else None
        waited_for = set(map(id, self._reads.values()))
        for sequence in self.sequences:
            if sequence.finish is None and id(sequence) not in waited_for:
                task = asyncio.create_task(sequence.read())
                task.add_done_callback(see_error)
                self._reads[task] = sequence
        if not self._reads:
            return None
        done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
        first = next(task for task in self._reads if task in done)
        return self._reads.pop(first), first.result()

    def close(self) -> None:
        """Frees what is unfinished in the engine, at once."""
        for task in self._reads:
            task.cancel()
        for sequence in self.sequences:
            sequence.close()


def see_error(task: asyncio.Task[str]) -> None:
    """Of several sequences that fail together the client hears one error; the others' tasks must
    not complain in the log that nobody looked at them."""
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
) -> Answers:
    """One sequence for each prompt and each of its n samplings, in OpenAI's order."""
    keeping, drafting = request.keeping, request.drafting
    stops = StopTable(request.stops)
    stop_ids = [] if request.ignore_eos else list(model.stop_ids)
    sequences: list[TextSequence] = []
    for tokens in prompts:
        for sampling in samplings:
            index = len(sequences)
            submit = Submit(
                f"{answer_id}-{index}", tokens, sampling, stop_ids, request.max_tokens,
                cache_prompt=keeping.cache_prompt, session_id=keeping.session_id,
                deadline_s=keeping.timeout_s, context_shift=may_shift(model, keeping),
                n_keep=keeping.n_keep or 0, wants_progress=request.return_progress,
                grammar=plan.grammar, draft_max=drafting.n_max, draft_min=drafting.n_min,
                draft_p_min=drafting.p_min,
            )  # fmt: skip
            sequences.append(TextSequence(index, model, submit, stops, meter, plan))
    return Answers(sequences)
