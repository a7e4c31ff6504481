"""What a request becomes whose conversation may outgrow the context."""

from __future__ import annotations

from dataclasses import replace

from dllama.requests import Submit


def fitted(submit: Submit, max_len: int) -> Submit:
    """The request as a context of `max_len` tokens has room for it; as it is, where its
    conversation ends with the context. Without a limit an answer would go on for ever: it gets
    one context's worth."""
    if not submit.context_shift:
        return submit
    n_keep = len(submit.tokens) if submit.n_keep < 0 else submit.n_keep
    tokens = fitting_prompt(submit.tokens, n_keep, max_len)
    n_most = max_len if submit.max_tokens is None else submit.max_tokens
    return replace(submit, tokens=tokens, n_keep=n_keep, max_tokens=n_most)


def fitting_prompt(tokens: list[int], n_keep: int, max_len: int) -> list[int]:
    """The first `n_keep` tokens and as many of the last as leave room for an answer.

    What goes, goes in blocks of half the context: as a chat grows from turn to turn, its prompts
    begin alike for a long time and find in the cache what the turn before has computed.
    """
    if len(tokens) < max_len:
        return tokens
    n_keep = max(0, min(n_keep, max_len - 4))
    block = (max_len - n_keep) // 2
    n_dropped = -(-(len(tokens) - max_len + 1) // block) * block
    return tokens[:n_keep] + tokens[n_keep + n_dropped :]
