"""Which guesses about answers are checked in the next step, and whether that pays.

A guess of k tokens makes k more rows of a step, and the sampler draws from them as long as each
token comes as guessed. Answers stay the same; only the number of steps changes. Knows no clock.

Guesses from what stood before cost nothing to speak of. Those of a second model take time, which
counts like that of the step they are checked in; it is asked where nothing stood before that tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Many

from dllama.engine.batch import Batch
from dllama.engine.drafter import MAX_DRAFT, Draft, Drafter, Guesser
from dllama.engine.model_drafter import Ask, DraftModel, ModelDrafter
from dllama.engine.sequence import Sequence
from dllama.engine.step_costs import StepCosts
from dllama.errors import ConfigError
from dllama.requests import Submit

AUTO = -1  # as many tokens as pay
MAX_FORCED = 32  # tokens of a guess that is always checked
MIN_GAIN = 1.03  # more tokens a second than without, or it is not worth the trouble
MAX_SLOWDOWN = 1.25  # of a step, for the answers beside that nothing was guessed of
EARNED = 0.015  # of a step that each step allows to lose
FIRST_CREDIT = 1.0  # steps that may be lost to begin with
MAX_CREDIT = 6.0
ENOUGH = 2.0  # tokens that a guess from what stood before brings, and no model is asked
ROUNDS = 5  # measurements of what a draft model takes for a token, of which the least counts


class Speculation:
    """Chooses drafts for the sequences of one engine.

    It may lose what it has won before, one step, and EARNED of all steps, and no more: so it costs
    next to nothing where nothing repeats itself.
    """

    def __init__(self, n_tokens: int = AUTO, model: DraftModel | None = None) -> None:
        """`n_tokens` of every guess are checked, whatever it costs; AUTO as many as pay, 0 none.
        `model` guesses, if there is one, and never more than it allows. Raises ConfigError."""
        for n in (n_tokens, 1 if model is None else model.max_tokens):
            if not AUTO <= n <= MAX_FORCED:
                raise ConfigError(
                    f"{n} tokens cannot be guessed at a time; 0 to {MAX_FORCED} are possible"
                )
        self._n_tokens, self._model = n_tokens, model
        self._max_tokens = n_tokens if n_tokens != AUTO else MAX_DRAFT
        self._round_s: deque[float] = deque(maxlen=ROUNDS)
        self._n_rounds = 0  # steps of the model for the guesses that are checked now
        # Without and with whole rows of logits, which take long to travel.
        self._costs = {False: StepCosts(), True: StepCosts()}
        self._credit = FIRST_CREDIT
        self.n_drafts = self.n_drafted = self.n_accepted = 0

    @property
    def has_model(self) -> bool:
        """Whether a second model guesses, which takes time."""
        return self._model is not None

    def drafter_for(self, submit: Submit) -> Guesser | None:
        """What guesses for the sequence of a request; None where nothing is to be guessed."""
        wanted, most = submit.draft_max, self._max_tokens
        if wanted is not None:
            most = min(most, wanted)
        if most <= 0 or submit.pooling is not None:
            return None
        n_min, p_min = submit.draft_min, submit.draft_p_min
        lookup = Drafter(max_tokens=most, min_tokens=n_min, min_chance=p_min)
        if self._model is None:
            return lookup
        most = min(most, self._model.max_tokens)
        return ModelDrafter(
            self._model, submit, lookup, max_tokens=most, min_tokens=n_min, min_chance=p_min
        )

    def choose(self, sequences: Many[Sequence], rooms: Many[int], max_rows: int) -> list[list[int]]:
        """A draft, mostly empty, for each of the sequences that the step continues, with at most
        `rooms` tokens each and `max_rows` of all."""
        n = len(sequences)
        nothing: list[list[int]] = [[] for _ in sequences]
        if max_rows <= 0 or not any(s.drafter for s in sequences):
            return nothing
        added, n_asked, round_cost = None, MAX_FORCED, 0.0
        if self._n_tokens == AUTO:
            costs = self._costs[_has_whole_rows(sequences)]
            added = costs.curve(n, min(max_rows, n * self._max_tokens))
            if added is None or not self._n_true(added, sequences):
                return nothing  # not even true guesses would pay
            if self._model is not None:
                round_cost = self._round_cost(costs.seconds(n))
                with_rounds = [cost + round_cost * -(-i // n) for i, cost in enumerate(added)]
                n_asked = -(-self._n_true(with_rounds, sequences) // n)
        drafts = self._drafts(sequences, rooms, n_asked, round_cost)
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
        self, batch: Batch, n_accepted: int, seconds: float, guessing_s: float = 0.0, *,
        is_mixed: bool,
    ) -> None:  # fmt: skip
        """A step has taken so long, and before it the guesses; so many tokens were as its drafts
        said. A step that read prompts besides tells nothing of what answers take."""
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
            self._round_s.append(guessing_s / n_rounds)
            lost += guessing_s / base_s
        self._credit = min(self._credit + EARNED - lost, MAX_CREDIT)

    def close(self) -> None:
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
        """What a token takes to be guessed, in parts of a step; nothing before it was measured."""
        return min(self._round_s) / base_s if self._round_s and base_s else 0.0

    def _n_true(self, added: list[float], sequences: Many[Sequence]) -> int:
        """How many guessed tokens would be best if all of them came true."""
        is_alone = self._model is None or all(s.drafter for s in sequences)
        return self._n_best(added, [1.0] * (len(added) - 1), len(sequences), is_alone=is_alone)

    def _drafts(
        self, sequences: Many[Sequence], rooms: Many[int], n_asked: int, round_cost: float
    ) -> list[Draft]:
        """A guess for each sequence: from what stood before, or where that is not enough from the
        model, which is asked for all of them together, for `n_asked` tokens each, and for none
        that does not pay."""
        drafts = [Draft([], []) for _ in sequences]
        asks: dict[int, Ask] = {}
        for i, (sequence, room) in enumerate(zip(sequences, rooms, strict=True)):
            drafter = sequence.drafter
            if isinstance(drafter, ModelDrafter):
                drafts[i] = drafter.lookup.guess(sequence.tokens, room)
                if n_asked and sum(drafts[i].chances) < ENOUGH:
                    asks[i] = Ask(drafter, sequence.tokens, min(room, n_asked))
            elif drafter is not None:
                drafts[i] = drafter.guess(sequence.tokens, room)
        if self._model is not None and asks:
            found = self._model.guess(list(asks.values()), round_cost)
            for i, draft in zip(asks, found, strict=True):
                if sum(draft.chances) > sum(drafts[i].chances):
                    drafts[i] = draft
            # Reading a prompt is paid once, and tells nothing of what a token takes.
            self._n_rounds = 0 if self._model.has_read else self._model.n_rounds
        return drafts

    def _n_best(
        self, added: list[float], chances: list[float], n: int, *, is_alone: bool = True
    ) -> int:
        """How many guessed tokens bring the most tokens a second beside those of n sequences, if
        they come true with these falling chances; 0 where too little is gained or much at stake."""
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
