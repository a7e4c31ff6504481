"""Outputs that a reader has not taken in yet are one by the time it asks."""

from __future__ import annotations

import asyncio

import pytest

from api.engines.router import OutputRouter
from dllama.errors import ClusterError
from dllama.requests import FinishReason, Output, Submit, TokenProbs


def test_unread_outputs_are_merged_and_their_counts_added() -> None:
    async def read() -> Output:
        router = OutputRouter(max_open=1)
        sequence = router.open(Submit("a", [1]), 0.0)
        router.send_unsent(lambda submit: None, 0.0)
        probs = [TokenProbs(token, -1.0, [], []) for token in (5, 6, 7)]
        router.deliver([
            Output("a", [5], n_prompt=9, n_cached=4, probs=probs[:1], n_drafted=3, n_accepted=1),
            Output("another", [1], n_drafted=50),
            Output("a", [6, 7], FinishReason.STOP, probs=probs[1:], n_drafted=2, n_accepted=2),
        ])  # fmt: skip
        assert len(router) == 0
        return await anext(sequence.stream)

    output = asyncio.run(read())
    assert (output.tokens, output.finish) == ([5, 6, 7], FinishReason.STOP)
    assert (output.n_prompt, output.n_cached) == (9, 4)
    assert (output.n_drafted, output.n_accepted) == (5, 3)
    assert output.probs is not None and [p.token for p in output.probs] == [5, 6, 7]


def test_an_error_is_raised_after_the_tokens_that_came_before_it() -> None:
    async def read() -> None:
        router = OutputRouter(max_open=1)
        sequence = router.open(Submit("a", [1]), 0.0)
        router.send_unsent(lambda submit: None, 0.0)
        failed = Output("a", [], FinishReason.ERROR, error="the logits are no numbers")
        router.deliver([Output("a", [5]), Output("a", [6]), failed])
        assert (await anext(sequence.stream)).tokens == [5, 6]
        with pytest.raises(ClusterError, match="no numbers"):
            await anext(sequence.stream)

    asyncio.run(read())
