"""Which guesses about answers are checked in the next step, and whether that pays.

A guess of k tokens makes k more rows of a step, and the sampler draws from them as long as each
token comes as guessed. Answers stay the same; only the number of steps changes. Knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

from dllama.engine.batch import Batch
from dllama.engine.drafter import MAX_DRAFT, Draft, Drafter
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


class Speculation:
    """Chooses drafts for the sequences of one engine.

    It may lose what it has won before, one step, and EARNED of all steps, and no more: so it costs
    next to nothing where nothing repeats itself.
    """

    def __init__(self, n_tokens: int = AUTO) -> None:
        """`n_tokens` of every guess are checked, whatever it costs; AUTO as many as pay, 0 none.
        Raises ConfigError."""
        if not AUTO <= n_tokens <= MAX_FORCED:
            raise ConfigError(
                f"{n_tokens} tokens cannot be guessed at a time; 0 to {MAX_FORCED} are possible"
            )
        self._n_tokens = n_tokens
        # Without and with whole rows of logits, which take long to travel.
        self._costs = {False: StepCosts(), True: StepCosts()}
        self._credit = FIRST_CREDIT
        self.n_drafts = self.n_drafted = self.n_accepted = 0

    def drafter_for(self, submit: Submit) -> Drafter | None:
        """What guesses for the sequence of a request; None where nothing is to be guessed."""
        wanted, most = submit.draft_max, self._n_tokens
        if most == AUTO:
            most = MAX_DRAFT
        if wanted is not None:
            most = min(most, wanted)
        if most <= 0 or submit.pooling is not None:
            return None
        return Drafter(max_tokens=most, min_tokens=submit.draft_min, min_chance=submit.draft_p_min)

    def choose(self, sequences: Many[Sequence], rooms: Many[int], max_rows: int) -> list[list[int]]:
        """A draft, mostly empty, for each of the sequences that the step continues, with at most
        `rooms` tokens each and `max_rows` of all."""
        n = len(sequences)
        nothing: list[list[int]] = [[] for _ in sequences]
        if max_rows <= 0 or not any(s.drafter for s in sequences):
            return nothing
        added = None
        if self._n_tokens == AUTO:
            costs = self._costs[_has_whole_rows(sequences)]
            added = costs.curve(n, min(max_rows, n * MAX_DRAFT))
            if added is None or not self._n_best(added, [1.0] * (len(added) - 1), n):
                return nothing  # not even true guesses would pay
        drafts = [_guess(s, room) for s, room in zip(sequences, rooms, strict=True)]
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

    def note(self, batch: Batch, n_accepted: int, seconds: float, *, is_mixed: bool) -> None:
        """A step has taken so long, and so many tokens were as its drafts said; one that read
        prompts besides tells nothing of what answers take."""
        n, n_drafted = len(batch.chunks), batch.n_drafted
        self.n_drafts += sum(bool(chunk.draft) for chunk in batch.chunks)
        self.n_drafted += n_drafted
        self.n_accepted += n_accepted
        if self._n_tokens != AUTO or is_mixed:
            return
        costs = self._costs[_has_whole_rows([chunk.sequence for chunk in batch.chunks])]
        costs.note(n + n_drafted, seconds)
        added = costs.curve(n, n_drafted)
        lost = added[-1] - n_accepted / n if added else 0.0
        self._credit = min(self._credit + EARNED - lost, MAX_CREDIT)

    def report(self) -> dict[str, object]:
        """`speculation` of GET /stats."""
        return {
            "drafts": self.n_drafts,
            "drafted": self.n_drafted,
            "accepted": self.n_accepted,
        }

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


def _guess(sequence: Sequence, room: int) -> Draft:
    drafter = sequence.drafter
    return drafter.guess(sequence.tokens, room) if drafter else Draft([], [])


def _has_whole_rows(sequences: Many[Sequence]) -> bool:
    return any(sequence.n_candidates == 0 for sequence in sequences)
