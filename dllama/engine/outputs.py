"""The Outputs of sequences: new tokens, an end, or an error; and EngineInterrupted, which carries
them when a node is lost."""

from __future__ import annotations

from dllama.engine.sequence import Sequence
from dllama.errors import ClusterError
from dllama.requests import FinishReason, Output, Submit

DEADLINE_RETRY_S = 5.0  # a queue in which a deadline has passed is a long one


class EngineInterrupted(ClusterError):
    """A node was lost: every sequence has ended, as `outputs` says, and the engine accepts no new
    ones until `Engine.recover` succeeds."""

    def __init__(self, message: str, *, outputs: list[Output]) -> None:
        super().__init__(message)
        self.outputs = outputs


def output_of(
    sequence: Sequence,
    tokens: list[int],
    finish: FinishReason | None = None,
    error: str | None = None,
    *,
    embedding: bytes | None = None,
    n_drafted: int = 0,
    n_accepted: int = 0,
) -> Output:
    """The output of one step for a sequence."""
    return Output(
        id=sequence.id,
        tokens=tokens,
        finish=finish,
        error=error,
        n_prompt=sequence.n_prompt,
        n_cached=sequence.n_cached,
        n_computed=sequence.n_computed,
        probs=sequence.take_probs(),
        embedding=embedding,
        n_drafted=n_drafted,
        n_accepted=n_accepted,
    )


def lost_answer(sequence: Sequence, lost: ClusterError) -> Output:
    """The error that ends a sequence when a node is lost."""
    reason = (
        f"{lost}; the answer ends here because the cluster lost what it had computed of it: "
        "send the request again, the cluster is being brought back"
    )
    return output_of(sequence, [], FinishReason.ERROR, reason)


def refusal(submit: Submit, reason: str, retry_after_s: float | None) -> Output:
    """The error that refuses a request."""
    return Output(
        id=submit.id,
        tokens=[],
        finish=FinishReason.ERROR,
        error=reason,
        n_prompt=len(submit.tokens),
        retry_after_s=retry_after_s,
    )


def out_of_time(sequence: Sequence, waited_s: float) -> Output:
    """The end of a sequence at its deadline: its answer so far, cut short, or before the first
    token an error to be retried."""
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
