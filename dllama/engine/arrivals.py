"""Makes sequences of requests: checked, fitted to the context, with drafter and grammar. Knows no
queue and no clock."""

from __future__ import annotations

from dllama.engine.constraint import ConstraintMaker
from dllama.engine.sequence import Sequence
from dllama.engine.speculative.speculation import Speculation
from dllama.engine.submit_check import check_submit, fitted
from dllama.errors import RequestError
from dllama.requests import Submit


class Arrivals:
    """Makes the sequences of one engine."""

    def __init__(
        self, vocab_size: int, speculation: Speculation, constraints: ConstraintMaker | None, *,
        has_states: bool = False,
    ) -> None:  # fmt: skip
        """`has_states`: layers of the model keep states."""
        self._has_states = has_states
        self._vocab_size = vocab_size
        self._speculation, self._constraints = speculation, constraints

    def sequence_of(self, submit: Submit, max_len: int, now_s: float) -> Sequence:
        """The sequence of a request for a context of `max_len` tokens, with what was told of its
        answer before. Its grammar begins to be compiled. Raises RequestError."""
        check_submit(submit, self._vocab_size)
        if submit.context_shift and self._has_states:
            raise RequestError(
                "layers of this model keep a state, which cannot forget the older half of a "
                "conversation as `context_shift` asks; leave it out, and the answer ends where the "
                "context is full",
                param="context_shift",
            )
        submit = fitted(submit, max_len)
        sequence = Sequence.from_submit(submit, self._vocab_size, now_s)
        sequence.drafter = self._speculation.drafter_for(submit)
        self._constrain(sequence, submit, max_len)
        return sequence

    def _constrain(self, sequence: Sequence, submit: Submit, max_len: int) -> None:
        if submit.grammar is None:
            return
        if self._constraints is None:
            raise RequestError(
                "this engine was started without a vocabulary, so that it cannot follow a grammar; "
                "leave out `response_format`, `grammar` and the like",
                param="grammar",
            )
        room = None if sequence.may_shift else max_len - sequence.n_prompt
        n_left = min((n for n in (submit.max_tokens, room) if n is not None), default=None)
        sequence.constraint = self._constraints.make(
            submit.grammar, submit.stop_ids, n_left, submit.resume
        )
