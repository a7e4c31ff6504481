"""The engine: schedule, run, sample, commit, step after step. Token ids in, token ids out; it
knows no text, no sockets and no other machine but through its Runner."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dllama.engine.batch import Batch, Chunk
from dllama.engine.constraint import ConstraintMaker
from dllama.engine.drawing import draw_token
from dllama.engine.engine_stats import EngineStats
from dllama.engine.interrupted import EngineInterrupted
from dllama.engine.long_prompt import fitted
from dllama.engine.model_drafter import DraftModel
from dllama.engine.outputs import lost_answer, out_of_time, output_of, refusal
from dllama.engine.pace import Pace
from dllama.engine.pooling import Pooler
from dllama.engine.scheduler import MAX_BATCH, MAX_STEP_TOKENS, MAX_WAITING, Scheduler
from dllama.engine.sequence import Sequence
from dllama.engine.session_store import SessionStore
from dllama.engine.speculation import Speculation
from dllama.engine.submit_check import check_submit
from dllama.errors import ClusterError, DllamaError, EngineBusy, RequestError
from dllama.requests import FinishReason, Output, SessionCall, SessionReply, Submit
from dllama.runner import Runner
from dllama.step import LogitRow

_RETRY_AFTER_LOSS_S = 3.0

__all__ = ["Engine", "EngineInterrupted"]


class Engine:
    """One model's sequences, run together. Not for several threads at once.

    Call `submit` and `abort` between steps, `step` while `has_work`, and `idle` now and then
    otherwise. Both of the last two raise EngineInterrupted when a node is lost.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_batch: int = MAX_BATCH,
        max_step_tokens: int = MAX_STEP_TOKENS,
        max_waiting: int = MAX_WAITING,
        constraints: ConstraintMaker | None = None,
        session_dir: Path | None = None,
        speculate: int = 0,
        draft_model: DraftModel | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`constraints` serves requests with a grammar, `session_dir` those that save sessions;
        without them they are refused. `speculate` is how many tokens are guessed at a time
        (speculation.AUTO: as many as pay), by `draft_model`, which the engine closes, or from
        what stood before. Raises ConfigError where the limits leave no room to work."""
        self._runner = runner
        self._constraints = constraints
        self._store = SessionStore(runner, session_dir)
        self._limits = {
            "max_batch": max_batch,
            "max_step_tokens": max_step_tokens,
            "max_waiting": max_waiting,
        }
        self._speculation = Speculation(speculate, draft_model)
        self._guessing_s = 0.0  # of the step that runs
        self._scheduler = self._new_scheduler()
        self._clock = clock
        self._started_s = clock()
        self._stats = EngineStats()
        self._pace = Pace(max_step_tokens)
        self._workers: list[dict[str, object]] = []  # as the runner last told them
        self._undelivered: list[Output] = []
        self._lost: str | None = None  # why no steps can be run

    @property
    def max_len(self) -> int:
        """The most tokens a sequence can have, prompt and answer together."""
        return self._scheduler.max_len

    @property
    def scheduler(self) -> Scheduler:
        """The sequences and their pages, for whoever inspects them; a new one after `recover`."""
        return self._scheduler

    def submit(self, submit: Submit) -> None:
        """Queues a sequence. One that cannot be served gets an Output with the reason from the
        next step, and this raises nothing."""
        try:
            self._accept(submit)
        except EngineBusy as busy:
            self._refuse(submit, str(busy), busy.retry_after_s)
        except RequestError as error:
            self._refuse(submit, str(error), None)

    def abort(self, sequence_id: str) -> None:
        """Forgets a sequence and frees its pages; nothing more is heard of it."""
        if self._scheduler.remove(sequence_id) is not None:
            self._stats.n_aborted += 1
        self._undelivered = [out for out in self._undelivered if out.id != sequence_id]

    def has_work(self) -> bool:
        """Whether a step would bring something."""
        return bool(self._undelivered) or len(self._scheduler) > 0

    def step(self) -> list[Output]:
        """Runs one step of all sequences that have a turn; what it brought to each of them.
        Raises EngineInterrupted."""
        outputs, self._undelivered = self._undelivered, []
        if self._lost is not None:
            return outputs
        began_s = self._clock()
        self._end_late_ones(began_s, outputs)
        scheduler = self._scheduler
        max_prefill = self._pace.prefill_rows(scheduler.n_decoding)
        self._guessing_s = 0.0
        batch = scheduler.schedule(max_prefill, self._guess)
        if batch is None:
            return outputs
        try:
            for shift in batch.shifts:
                self._runner.shift(shift)
            rows = self._runner.run(batch.to_step())
        except ClusterError as lost:
            raise self._interrupted(lost, outputs) from lost
        self._commit(batch, rows, began_s, outputs)
        return outputs

    def session(self, call: SessionCall) -> SessionReply:
        """Saves, restores or erases a session, between two steps."""
        began_s = self._clock()
        try:
            if self._lost is not None:
                raise EngineBusy(f"{self._lost}; the cluster is being brought back")
            reply = self._store.perform(call, self._scheduler.kv)
        except DllamaError as error:  # where a node was lost, the next step or `idle` says so
            return SessionReply(call.id, error=str(error))
        return replace(reply, elapsed_ms=(self._clock() - began_s) * 1e3)

    def idle(self) -> None:
        """Watches over the nodes while there is nothing to do. Raises EngineInterrupted."""
        if self._lost is not None:
            return
        try:
            self._runner.idle()
        except ClusterError as lost:
            outputs, self._undelivered = self._undelivered, []
            raise self._interrupted(lost, outputs) from lost

    def recover(self) -> None:
        """Brings the nodes back, or raises ClusterError: then try again later."""
        self._runner.recover()
        self._scheduler = self._new_scheduler()  # the cluster may have another size now
        self._lost = None

    def stats(self) -> dict[str, object]:
        """The body of GET /stats. Rates are over the last ten busy seconds, latencies over the
        last thousand; all are 0 before there is something to tell."""
        with contextlib.suppress(ClusterError):  # the last known figures are better than none
            self._workers = self._runner.stats() or self._workers
        return {
            "model": self._runner.config.name,
            "world_size": len(self._workers),
            "uptime_s": self._clock() - self._started_s,
            **self._stats.report(self._scheduler),
            "speculation": self._speculation.report(),
            "workers": self._workers,
        }

    def close(self) -> None:
        """Closes the runners; the engine is of no use afterwards."""
        if self._constraints is not None:
            self._constraints.close()
        self._speculation.close()
        self._runner.close()

    def _guess(self, sequences: Many[Sequence], rooms: Many[int], max_rows: int) -> list[list[int]]:
        """The drafts of a step, and how long it took to find them where a model did."""
        if not self._speculation.has_model:
            return self._speculation.choose(sequences, rooms, max_rows)
        began_s = self._clock()
        drafts = self._speculation.choose(sequences, rooms, max_rows)
        self._guessing_s = self._clock() - began_s
        return drafts

    def _new_scheduler(self) -> Scheduler:
        return Scheduler(
            n_pages=self._runner.n_pages,
            max_seq_len=self._runner.config.max_seq_len,
            **self._limits,
        )

    def _accept(self, submit: Submit) -> None:
        """Puts a sequence in the queue. Raises RequestError, EngineBusy."""
        if self._lost is not None:
            raise EngineBusy(
                f"{self._lost}; the cluster is being brought back, send the request again in a "
                "few seconds",
                retry_after_s=_RETRY_AFTER_LOSS_S,
            )
        if self._scheduler.remove(submit.id) is not None:
            raise RequestError(
                f"the id {submit.id!r} belongs to a sequence that still runs; that one ends "
                "here too, because nobody could tell their tokens apart: give every request an "
                "id of its own",
                param="id",
            )
        vocab_size = self._runner.config.vocab_size
        check_submit(submit, vocab_size)
        submit = fitted(submit, self.max_len)
        sequence = Sequence.from_submit(submit, vocab_size, self._clock())
        sequence.drafter = self._speculation.drafter_for(submit)
        self._constrain(sequence, submit)
        if submit.max_tokens == 0:
            self._undelivered.append(output_of(sequence, [], FinishReason.LENGTH))
            self._stats.n_finished += 1
        else:
            self._scheduler.add(sequence)

    def _end_late_ones(self, now_s: float, outputs: list[Output]) -> None:
        """Ends the sequences whose deadline has passed."""
        for sequence in self._scheduler.all_late(now_s):
            self._scheduler.remove(sequence.id)
            ended = out_of_time(sequence, now_s - sequence.arrived_s)
            self._stats.n_failed += ended.finish is FinishReason.ERROR
            self._stats.n_finished += ended.finish is not FinishReason.ERROR
            outputs.append(ended)

    def _constrain(self, sequence: Sequence, submit: Submit) -> None:
        """Begins to compile the request's grammar, if it has one. Raises RequestError."""
        if submit.grammar is None:
            return
        if self._constraints is None:
            raise RequestError(
                "this engine was started without a vocabulary, so that it cannot follow a grammar; "
                "leave out `response_format`, `grammar` and the like",
                param="grammar",
            )
        room = None if sequence.may_shift else self.max_len - sequence.n_prompt
        n_left = min((n for n in (sequence.n_left, room) if n is not None), default=None)
        sequence.constraint = self._constraints.make(submit.grammar, submit.stop_ids, n_left)

    def _refuse(self, submit: Submit, reason: str, retry_after_s: float | None) -> None:
        self._stats.n_failed += 1
        self._undelivered.append(refusal(submit, reason, retry_after_s))

    def _commit(
        self, batch: Batch, rows: list[LogitRow], began_s: float, outputs: list[Output]
    ) -> None:
        """Notes what was computed, and draws tokens for each sequence that was computed to its
        end, in the order of the rows."""
        now_s = self._clock()
        remaining = iter(rows)
        n_prefill = n_decode = n_hidden = n_accepted = 0
        for chunk in batch.chunks:
            sequence, is_last = chunk.sequence, chunk.is_last
            n_decode += chunk.n_decode
            n_prefill += chunk.n - chunk.n_decode
            self._scheduler.note_computed(sequence, chunk.n)
            if sequence.pooler is not None:
                states = self._runner.hidden[n_hidden : n_hidden + chunk.n]
                sequence.pooler.take(sequence.n_computed - chunk.n, states)
                n_hidden += chunk.n
                if is_last:
                    outputs.append(self._finish_pooled(sequence, sequence.pooler, now_s))
            elif is_last:
                n_rows = 1 + len(chunk.draft)
                outputs.append(self._draw(chunk, list(islice(remaining, n_rows)), now_s))
                n_accepted += outputs[-1].n_accepted
            if sequence.wants_progress and not is_last:
                outputs.append(output_of(sequence, []))
        assert next(remaining, None) is None, "the runner returned rows that were not asked for"
        n_drafted, guessing_s = batch.n_drafted, self._guessing_s
        self._stats.add_step(n_prefill, n_decode + n_accepted, now_s - began_s)
        step_s = now_s - began_s - guessing_s
        if n_prefill or not n_drafted:  # rows of drafts, too, are what is beside the answers
            self._pace.note(n_prefill + n_drafted, n_decode, step_s)
        self._speculation.note(batch, n_accepted, step_s, guessing_s, is_mixed=n_prefill > 0)

    def _draw(self, chunk: Chunk, rows: list[LogitRow], now_s: float) -> Output:
        """One more token for a sequence, and another as long as they come as its draft says; or
        its end. What was computed behind another token is worth nothing, and written over."""
        sequence, tokens = chunk.sequence, []
        for i, row in enumerate(rows):
            drawn = draw_token(sequence, row, self.max_len)
            if drawn.token is not None:
                tokens.append(drawn.token)
            if drawn.finish is not None or i == len(chunk.draft) or drawn.token != chunk.draft[i]:
                break
            self._scheduler.note_computed(sequence, 1)
        self._stats.note_tokens(sequence, now_s, i + (drawn.error is None))
        if drawn.finish is None:
            out = output_of(sequence, tokens)
        else:
            out = self._finish(sequence, tokens, drawn.finish, drawn.error)
        return replace(out, n_drafted=len(chunk.draft), n_accepted=i) if chunk.draft else out

    def _finish_pooled(self, sequence: Sequence, pooler: Pooler, now_s: float) -> Output:
        self._stats.note_tokens(sequence, now_s, 1)
        done = self._finish(sequence, [], FinishReason.STOP)
        return replace(done, embedding=pooler.vector().astype("<f4").tobytes())

    def _finish(
        self, sequence: Sequence, tokens: list[int], reason: FinishReason, error: str | None = None
    ) -> Output:
        self._scheduler.remove(sequence.id)
        self._stats.n_failed += error is not None
        self._stats.n_finished += error is None
        return output_of(sequence, tokens, reason, error)

    def _interrupted(self, lost: ClusterError, outputs: list[Output]) -> EngineInterrupted:
        """Ends every sequence; the error that says so and carries all that is undelivered."""
        self._lost = str(lost)
        ended = self._scheduler.clear()
        self._stats.n_failed += len(ended)
        outputs += [lost_answer(sequence, lost) for sequence in ended]
        return EngineInterrupted(str(lost), outputs=outputs)
