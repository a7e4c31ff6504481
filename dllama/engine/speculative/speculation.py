"""Speculative decoding: which drafts are checked in the next step, and whether that pays.

A draft of k tokens makes k more rows of a step, and the sampler samples from them as long as each
token equals the drafted one. Answers stay the same; only the number of steps changes. Knows no
clock.

Drafts from the text cost next to nothing. A draft model takes time, which counts as part of the
step that checks its drafts; it is asked where the text gives too little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Many

from dllama.engine.batch import Batch
from dllama.engine.sequence import Sequence
from dllama.engine.speculative.draft import MAX_DRAFT, Draft, Drafter
from dllama.engine.speculative.model_drafter import DraftModel, DraftRequest, ModelDrafter
from dllama.engine.speculative.ngram import NgramDrafter
from dllama.engine.speculative.step_costs import StepCosts
from dllama.errors import ConfigError
from dllama.requests import Submit

AUTO = -1  # as many tokens as pay
MAX_FORCED = 32  # tokens of a draft that is always checked
MIN_GAIN = 1.03  # tokens per second, relative to a plain step, from which a draft is checked
MAX_SLOWDOWN = 1.25  # of a step, for sequences beside that have no draft
EARNED = 0.015  # credit that every step earns, as a fraction of a step
FIRST_CREDIT = 1.0  # steps that may be lost at first
MAX_CREDIT = 6.0
ENOUGH = 2.0  # expected tokens of a draft from the text for which no model is asked
ROUNDS = 5  # measurements of the draft model's step, of which the least counts


class Speculation:
    """Chooses drafts for the sequences of one engine.

    Its losses are bounded by a credit: what it has gained before, one step, and EARNED of all
    steps. So it costs next to nothing where text does not repeat itself.
    """

    def __init__(self, n_tokens: int = AUTO, model: DraftModel | None = None) -> None:
        """`n_tokens` of every draft are checked at any cost; AUTO: as many as pay, 0: none.
        `model` drafts, if given, its own maximum at most. Raises ConfigError."""
        for n in (n_tokens, 1 if model is None else model.max_tokens):
            if not AUTO <= n <= MAX_FORCED:
                raise ConfigError(
                    f"{n} tokens cannot be guessed at a time; 0 to {MAX_FORCED} are possible"
                )
        self._n_tokens, self._model = n_tokens, model
        self._max_tokens = n_tokens if n_tokens != AUTO else MAX_DRAFT
        self._round_s: deque[float] = deque(maxlen=ROUNDS)
        self._n_rounds = 0  # steps of the model for the drafts that are being checked
        # Without and with whole rows of logits, which take long to travel.
        self._costs = {False: StepCosts(), True: StepCosts()}
        self._credit = FIRST_CREDIT
        self.n_drafts = self.n_drafted = self.n_accepted = 0

    @property
    def has_model(self) -> bool:
        """Whether a draft model is used, whose time has to be measured."""
        return self._model is not None

    def drafter_for(self, submit: Submit) -> Drafter | None:
        """The drafter of a request's sequence; None where nothing may be drafted."""
        wanted, most = submit.draft_max, self._max_tokens
        if wanted is not None:
            most = min(most, wanted)
        if most <= 0 or submit.pooling is not None:
            return None
        n_min, p_min = submit.draft_min, submit.draft_p_min
        lookup = NgramDrafter(max_tokens=most, min_tokens=n_min, min_chance=p_min)
        if self._model is None:
            return lookup
        most = min(most, self._model.max_tokens)
        return ModelDrafter(
            self._model, submit, lookup, max_tokens=most, min_tokens=n_min, min_chance=p_min
        )

    def choose(
        self, sequences: Many[Sequence], limits: Many[int], max_rows: int
    ) -> list[list[int]]:
        """The drafts to check, one (often empty) for each decoding sequence: `limits` tokens at
        most of each, `max_rows` in all."""
        n = len(sequences)
        nothing: list[list[int]] = [[] for _ in sequences]
        if max_rows <= 0 or not any(s.drafter for s in sequences):
            return nothing
        added, n_asked, round_cost = None, MAX_FORCED, 0.0
        if self._n_tokens == AUTO:
            costs = self._costs[_has_whole_rows(sequences)]
            added = costs.curve(n, min(max_rows, n * self._max_tokens))
            if added is None or not self._n_if_accepted(added, sequences):
                return nothing  # drafts would not pay even if all were accepted
            if self._model is not None:
                round_cost = self._round_cost(costs.seconds(n))
                with_rounds = [cost + round_cost * -(-i // n) for i, cost in enumerate(added)]
                n_asked = -(-self._n_if_accepted(with_rounds, sequences) // n)
        drafts = self._drafts(sequences, limits, n_asked, round_cost)
        ranked = sorted(
            ((chance, i) for i, draft in enumerate(drafts) for chance in draft.chances),
            key=lambda found: -found[0],
        )[:max_rows]
        if added is not None:
            is_alone = all(draft.tokens for draft in drafts)
            n_best = self._n_best(added, [c for c, _ in ranked], n, is_alone=is_alone)
            ranked = ranked[:n_best]
        lengths = [0] * n
        for _, i in ranked:
            lengths[i] += 1
        return [
            s.drafter.trimmed(draft.tokens[:length]) if s.drafter else []
            for s, draft, length in zip(sequences, drafts, lengths, strict=True)
        ]

    def note(
        self, batch: Batch, n_accepted: int, seconds: float, drafting_s: float = 0.0, *,
        is_mixed: bool,
    ) -> None:  # fmt: skip
        """Records a step: its duration, the time its drafts took before it, and how many of their
        tokens were accepted. A step with prompt tokens (`is_mixed`) is not used as a measurement
        of decode steps."""
        n, n_drafted = len(batch.chunks), batch.n_drafted
        n_rounds, self._n_rounds = self._n_rounds, 0
        self.n_drafts += sum(bool(chunk.draft) for chunk in batch.chunks)
        self.n_drafted += n_drafted
        self.n_accepted += n_accepted
        if self._n_tokens != AUTO or is_mixed:
            return
        costs = self._costs[_has_whole_rows([chunk.sequence for chunk in batch.chunks])]
        costs.note(n + n_drafted, seconds)
        added, base_s = costs.curve(n, n_drafted), costs.seconds(n)
        lost = added[-1] - n_accepted / n if added else 0.0
        if n_rounds and base_s:
            self._round_s.append(drafting_s / n_rounds)
            lost += drafting_s / base_s
        self._credit = min(self._credit + EARNED - lost, MAX_CREDIT)

    def close(self) -> None:
        """Closes the draft model, if there is one."""
        if self._model is not None:
            self._model.close()

    def report(self) -> dict[str, object]:
        """`speculation` of GET /stats."""
        return {
            "drafts": self.n_drafts,
            "drafted": self.n_drafted,
            "accepted": self.n_accepted,
        }

    def _round_cost(self, base_s: float | None) -> float:
        """The draft model's time for a token, as a fraction of a plain step; 0 before it was
        measured."""
        return min(self._round_s) / base_s if self._round_s and base_s else 0.0

    def _n_if_accepted(self, added: list[float], sequences: Many[Sequence]) -> int:
        """The best number of drafted tokens if all of them were accepted."""
        is_alone = self._model is None or all(s.drafter for s in sequences)
        return self._n_best(added, [1.0] * (len(added) - 1), len(sequences), is_alone=is_alone)

    def _drafts(
        self, sequences: Many[Sequence], limits: Many[int], n_asked: int, round_cost: float
    ) -> list[Draft]:
        """A draft for each sequence: from the text, or where that gives too little from the model,
        which drafts for all of them together, `n_asked` tokens each at most, and none that does
        not pay."""
        drafts = [Draft([], []) for _ in sequences]
        requests: dict[int, DraftRequest] = {}
        for i, (sequence, limit) in enumerate(zip(sequences, limits, strict=True)):
            drafter = sequence.drafter
            if isinstance(drafter, ModelDrafter):
                drafts[i] = drafter.lookup.draft(sequence.tokens, limit)
                if n_asked and sum(drafts[i].chances) < ENOUGH:
                    requests[i] = DraftRequest(drafter, sequence.tokens, min(limit, n_asked))
            elif drafter is not None:
                drafts[i] = drafter.draft(sequence.tokens, limit)
        if self._model is not None and requests:
            found = self._model.draft(list(requests.values()), round_cost)
            for i, draft in zip(requests, found, strict=True):
                if sum(draft.chances) > sum(drafts[i].chances):
                    drafts[i] = draft
            # Reading a prompt happens once: it is no part of a drafted token's cost.
            self._n_rounds = 0 if self._model.has_read else self._model.n_rounds
        return drafts

    def _n_best(
        self, added: list[float], chances: list[float], n: int, *, is_alone: bool = True
    ) -> int:
        """The number of drafted tokens, with these falling chances, that gives the most tokens per
        second beside those of n sequences; 0 where the gain is too small or the risk too large."""
        limit = self._credit if is_alone else min(self._credit, MAX_SLOWDOWN - 1.0)
        best, best_gain = 0, MIN_GAIN
        expected = 0.0
        for i, chance in enumerate(chances[: len(added) - 1], 1):
            expected += chance
            gain = (1.0 + expected / n) / (1.0 + added[i])
            if gain > best_gain and added[i] <= limit:
                best, best_gain = i, gain
        return best


def _has_whole_rows(sequences: Many[Sequence]) -> bool:
    return any(sequence.n_candidates == 0 for sequence in sequences)
