"""The Outputs of sequences: new tokens, an end, or an error."""

from __future__ import annotations

from dataclasses import replace

from dllama.engine.sequence import Sequence
from dllama.errors import EngineBusy
from dllama.requests import FinishReason, Output, Submit

GIVEN_UP_RETRY_S = 3.0
DEADLINE_RETRY_S = 5.0  # a queue in which a deadline has passed is a long one


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
        mu=sequence.sampler.mu,
        n_replaced=sequence.constraint.n_replaced if sequence.constraint is not None else 0,
        waited_s=sequence.waited_s,
    )


def given_up(sequence: Sequence, lost: str, waited_s: float) -> Output:
    """The error that ends a sequence when a lost node does not come back in time."""
    reason = (
        f"{lost}; the answer ends here because the cluster could not be brought back within "
        f"{waited_s:.0f} s (--max-recover-s): send the request again later, it is still tried"
    )
    failed = output_of(sequence, [], FinishReason.ERROR, reason)
    return replace(failed, retry_after_s=GIVEN_UP_RETRY_S)


def still_lost(lost: str) -> EngineBusy:
    """The error that refuses requests after that."""
    return EngineBusy(
        f"{lost}; the cluster is being brought back, send the request again in a few seconds",
        retry_after_s=GIVEN_UP_RETRY_S,
    )


def lost_room(sequence: Sequence, max_len: int) -> Output:
    """The error that ends a sequence when the nodes that are left have too little memory for it."""
    reason = (
        f"the answer ends here at {len(sequence.tokens)} tokens with its prompt: the nodes that "
        f"are left after a change have room for {max_len}; send a shorter prompt"
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
