"""What is told of a sequence: new tokens, its end, or why there is none."""

from __future__ import annotations

from dllama.engine.sequence import Sequence
from dllama.errors import ClusterError
from dllama.requests import FinishReason, Output, Submit

DEADLINE_RETRY_S = 5.0  # a queue in which somebody's time ran out is a long one


def output_of(
    sequence: Sequence,
    tokens: list[int],
    finish: FinishReason | None = None,
    error: str | None = None,
) -> Output:
    """What one step brought to a sequence."""
    return Output(
        id=sequence.id,
        tokens=tokens,
        finish=finish,
        error=error,
        n_prompt=sequence.n_prompt,
        n_cached=sequence.n_cached,
        n_computed=sequence.n_computed,
        probs=sequence.take_probs(),
    )


def lost_answer(sequence: Sequence, lost: ClusterError) -> Output:
    """The end of a sequence together with a node."""
    reason = (
        f"{lost}; the answer ends here because the cluster lost what it had computed of it: "
        "send the request again, the cluster is being brought back"
    )
    return output_of(sequence, [], FinishReason.ERROR, reason)


def refusal(submit: Submit, reason: str, retry_after_s: float | None) -> Output:
    """Why a request is not served."""
    return Output(
        id=submit.id,
        tokens=[],
        finish=FinishReason.ERROR,
        error=reason,
        n_prompt=len(submit.tokens),
        retry_after_s=retry_after_s,
    )


def out_of_time(sequence: Sequence, waited_s: float) -> Output:
    """The end of a sequence at its deadline: what it has so far is its answer, cut short; one
    that has nothing yet is an error, to be tried again."""
    if sequence.n_generated:
        return output_of(sequence, [], FinishReason.LENGTH)
    return Output(
        id=sequence.id,
        tokens=[],
        finish=FinishReason.ERROR,
        error=f"the request's time ran out after {waited_s:.1f} s, before the first token: the "
        "server is busy, or the prompt is long; send it again later or give it more time",
        n_prompt=sequence.n_prompt,
        retry_after_s=DEADLINE_RETRY_S,
    )
