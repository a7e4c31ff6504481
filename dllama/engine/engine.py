"""The engine: schedule, run, sample, commit, step after step. Token ids in, token ids out; it
knows no text and no sockets, and other machines only through its Runner."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path

from dllama.engine.arrivals import Arrivals
from dllama.engine.batch import Batch, Result
from dllama.engine.constraint import ConstraintMaker
from dllama.engine.kv.session_store import SessionStore
from dllama.engine.outputs import given_up, lost_room, out_of_time, output_of, refusal, still_lost
from dllama.engine.pace import Pace
from dllama.engine.scheduler import MAX_BATCH, MAX_STEP_TOKENS, MAX_WAITING, Scheduler
from dllama.engine.sequence import Sequence
from dllama.engine.speculative.model_drafter import DraftModel
from dllama.engine.speculative.speculation import Speculation
from dllama.engine.stats import EngineStats
from dllama.errors import ClusterError, DllamaError, EngineBusy, RequestError
from dllama.nodes import NodesAction, NodesCall, NodesReply
from dllama.requests import FinishReason, Output, SessionCall, SessionReply, Submit
from dllama.runner import Runner, windows_of
from dllama.step import LogitRow


class Engine:
    """One model's sequences, run together. Not thread-safe.

    Call `submit` and `abort` between steps, `step` while `has_work`, and `idle` now and then
    otherwise. Both raise ClusterError when a node is lost. Then all sequences wait, keys and values
    are gone, and `recover` is to be called until it works; `step` delivers what there is meanwhile.
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
        without them they are refused. `speculate` is the number of tokens drafted at a time
        (speculation.AUTO: as many as pay), by `draft_model`, which the engine closes, or from
        the text. Raises ConfigError where the limits leave no room to work."""
        self._runner = runner
        self._constraints = constraints
        self._store = SessionStore(runner, session_dir)
        n_drafted = 0 if runner.config.n_slots else speculate  # a state cannot be taken back
        self._speculation = Speculation(n_drafted, draft_model)
        self._drafting_s = 0.0  # the draft model's time for the current step
        has_states = runner.config.n_slots > 0
        self._arrivals = Arrivals(
            runner.config.n_tokens, self._speculation, constraints, has_states=has_states
        )
        self._scheduler = Scheduler(
            n_pages=runner.n_pages,
            max_seq_len=runner.config.max_seq_len,
            max_batch=max_batch,
            max_step_tokens=max_step_tokens,
            max_waiting=max_waiting,
            n_slots=runner.config.n_slots,
            windows=windows_of(runner),
        )
        self._clock = clock
        self._started_s = clock()
        self._stats = EngineStats()
        self._pace = Pace(max_step_tokens)
        self._workers: list[dict[str, object]] = []  # the runner's latest report
        self._undelivered: list[Output] = []
        self._lost: str | None = None  # why no steps can be run
        self._lost_at_s = 0.0
        self._has_given_up = False

    # ---- the core: schedule, run, sample, commit
    def step(self) -> list[Output]:
        """Runs one step; returns the new outputs of all sequences. Raises ClusterError."""
        outputs, self._undelivered = self._undelivered, []
        began_s = self._clock()
        outputs += self._end_late_ones(began_s)
        batch = self._schedule() if self._lost is None else None
        if batch is None:
            return outputs
        batch.begin(began_s)
        try:
            rows = self._run(batch)
        except ClusterError as lost:  # before any token was sampled
            self._undelivered = outputs
            self.suspend(str(lost))
            raise
        ran_s = self._clock()
        results = batch.sample(rows, self._runner.hidden, self.max_len)
        self._measure(batch, results, ran_s - began_s)
        outputs += self._commit(batch, results, ran_s)
        return outputs

    def _schedule(self) -> Batch | None:
        """Chooses the chunks of the next step; None where there is nothing to do."""
        self._drafting_s = 0.0
        max_prefill = self._pace.prefill_rows(self._scheduler.n_decoding)
        return self._scheduler.schedule(max_prefill, self._choose_drafts)

    def _run(self, batch: Batch) -> list[LogitRow]:
        """Shifts full contexts and computes the batch on all ranks: the logits that it asks for.
        Raises ClusterError."""
        for shift in batch.shifts:
            self._runner.shift(shift)
        return self._runner.run(batch.to_step())

    def _commit(self, batch: Batch, results: list[Result | None], now_s: float) -> list[Output]:
        """Records what was computed, accepted drafts included, and ends finished sequences."""
        outputs = []
        for chunk, result in zip(batch.chunks, results, strict=True):
            sequence = chunk.sequence
            if result is None:
                self._scheduler.note_computed(sequence, chunk.n)
                if sequence.wants_progress:
                    outputs.append(output_of(sequence, []))
                continue
            self._scheduler.note_computed(sequence, chunk.n + result.n_accepted)
            n_sampled = result.n_accepted + (result.error is None)
            self._stats.note_tokens(sequence, now_s, n_sampled)
            if result.finish is not None:
                self._scheduler.remove(sequence.id)
                self._stats.note_end(is_failure=result.error is not None)
            outputs.append(
                output_of(
                    sequence,
                    result.tokens,
                    result.finish,
                    result.error,
                    embedding=result.embedding,
                    n_drafted=len(chunk.draft),
                    n_accepted=result.n_accepted,
                )
            )
        return outputs

    # ---- requests
    @property
    def max_len(self) -> int:
        """The most tokens of a sequence, prompt and answer together."""
        return self._scheduler.max_len

    @property
    def scheduler(self) -> Scheduler:
        """The sequences and their pages, for inspection."""
        return self._scheduler

    def submit(self, submit: Submit) -> None:
        """Queues a sequence. Raises nothing: a request that cannot be served gets an Output with
        the reason from the next step."""
        try:
            self._accept(submit)
        except (EngineBusy, RequestError) as error:
            retry_after_s = error.retry_after_s if isinstance(error, EngineBusy) else None
            self._fail(refusal(submit, str(error), retry_after_s))

    def abort(self, sequence_id: str) -> None:
        """Forgets a sequence and frees its pages; it gets no more outputs."""
        if self._scheduler.remove(sequence_id) is not None:
            self._stats.n_aborted += 1
        self._undelivered = [out for out in self._undelivered if out.id != sequence_id]

    def has_work(self) -> bool:
        """Whether `step` has something to do or to deliver."""
        return bool(self._undelivered) or len(self._scheduler) > 0

    def session(self, call: SessionCall) -> SessionReply:
        """Saves, restores or erases a session, between two steps."""
        began_s = self._clock()
        try:
            if self._lost is not None:
                raise EngineBusy(f"{self._lost}; the cluster is being brought back")
            reply = self._store.perform(call, self._scheduler.kv)
        except EngineBusy as busy:
            return SessionReply(call.id, str(busy), busy.retry_after_s)
        except DllamaError as error:  # if a node was lost, the next `step` or `idle` raises
            return SessionReply(call.id, error=str(error))
        return replace(reply, elapsed_ms=(self._clock() - began_s) * 1e3)

    # ---- nodes
    def idle(self) -> None:
        """Checks on the nodes while there is nothing to do. Raises ClusterError."""
        if self._lost is not None:
            return
        try:
            self._runner.idle()
        except ClusterError as lost:
            self.suspend(str(lost))
            raise

    def nodes(self, call: NodesCall) -> NodesReply | None:
        """Lists, adds or removes nodes; see Runner. What changes is seen in `pending_change`."""
        return self._runner.nodes(call)

    def node_replies(self) -> list[NodesReply]:
        """The replies that `nodes` could not give at once."""
        return self._runner.node_replies()

    @property
    def pending_change(self) -> str | None:
        """Why the runner would like to come up anew: then call `suspend`, and `recover` at once."""
        return self._runner.pending_change if self._lost is None else None

    def suspend(self, reason: str) -> None:
        """Has all sequences wait for `recover`; their keys and values are forgotten. Nothing was
        sampled that is not committed, so each goes on with its very next token."""
        self._lost, self._lost_at_s = reason, self._clock()
        self._scheduler.suspend()

    def recover(self) -> None:
        """Brings the nodes back. Raises ClusterError where that fails: try again later."""
        self._runner.recover()
        runner, scheduler = self._runner, self._scheduler
        max_seq_len, windows = runner.config.max_seq_len, windows_of(runner)
        for sequence in scheduler.resume(runner.n_pages, max_seq_len, windows):
            self._fail(lost_room(sequence, self.max_len))
        self._stats.add_recovery(self._clock() - self._lost_at_s)
        self._lost, self._has_given_up = None, False

    def give_up(self) -> None:
        """Ends all sequences that wait for `recover`, and refuses new ones until it works."""
        assert self._lost is not None, "no node is lost"
        self._has_given_up = True
        for sequence in self._scheduler.clear():
            self._fail(given_up(sequence, self._lost, self._clock() - self._lost_at_s))

    def stats(self) -> dict[str, object]:
        """The body of GET /stats. Rates are over the last ten busy seconds, latencies over the
        last thousand; 0 before the first."""
        if self._lost is None:
            with contextlib.suppress(ClusterError):  # the latest figures are better than none
                self._workers = self._runner.stats() or self._workers
        nodes = self._runner.nodes(NodesCall("stats", NodesAction.LIST))
        return {
            "model": self._runner.config.name,
            "world_size": len(self._workers),
            "uptime_s": self._clock() - self._started_s,
            **self._stats.report(self._scheduler),
            "speculation": self._speculation.report(),
            "workers": self._workers,
            "unused_nodes": nodes.unused() if nodes is not None else [],
        }

    def close(self) -> None:
        """Closes the runners; the engine cannot be used afterwards."""
        if self._constraints is not None:
            self._constraints.close()
        self._speculation.close()
        self._runner.close()

    def _choose_drafts(
        self, sequences: Many[Sequence], limits: Many[int], max_rows: int
    ) -> list[list[int]]:
        """Speculation.choose, timed where a draft model takes time."""
        if not self._speculation.has_model:
            return self._speculation.choose(sequences, limits, max_rows)
        began_s = self._clock()
        drafts = self._speculation.choose(sequences, limits, max_rows)
        self._drafting_s = self._clock() - began_s
        return drafts

    def _measure(self, batch: Batch, results: list[Result | None], seconds: float) -> None:
        """Records a step's duration, before it is committed."""
        n_prefill, n_decode, n_drafted = batch.n_prefill, batch.n_decode, batch.n_drafted
        n_accepted = sum(result.n_accepted for result in results if result is not None)
        self._stats.add_step(n_prefill, n_decode + n_accepted, seconds)
        step_s = seconds - self._drafting_s
        if n_prefill or not n_drafted:  # rows of drafts, too, delay the decoding sequences
            self._pace.note(n_prefill + n_drafted, n_decode, step_s)
        is_mixed = n_prefill > 0
        self._speculation.note(batch, n_accepted, step_s, self._drafting_s, is_mixed=is_mixed)

    def _accept(self, submit: Submit) -> None:
        """Puts a sequence in the queue. Raises RequestError, EngineBusy."""
        if self._lost is not None and self._has_given_up:
            raise still_lost(self._lost)
        if self._scheduler.remove(submit.id) is not None:
            raise RequestError(
                f"the id {submit.id!r} belongs to a sequence that still runs; that one ends "
                "here too, because nobody could tell their tokens apart: give every request an "
                "id of its own",
                param="id",
            )
        sequence = self._arrivals.sequence_of(submit, self.max_len, self._clock())
        if submit.max_tokens == 0:
            self._undelivered.append(output_of(sequence, [], FinishReason.LENGTH))
            self._stats.note_end(is_failure=False)
        else:
            self._scheduler.add(sequence, is_resumed=submit.resume is not None)

    def _fail(self, output: Output) -> None:
        """Delivers the error that has ended a sequence with the next step."""
        self._stats.note_end(is_failure=True)
        self._undelivered.append(output)

    def _end_late_ones(self, now_s: float) -> list[Output]:
        """Ends the sequences whose deadline has passed."""
        outputs = []
        for sequence in self._scheduler.all_late(now_s):
            self._scheduler.remove(sequence.id)
            outputs.append(out_of_time(sequence, now_s - sequence.arrived_s))
            self._stats.note_end(is_failure=outputs[-1].finish is FinishReason.ERROR)
        return outputs
