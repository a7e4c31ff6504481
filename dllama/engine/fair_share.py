"""How prompts share the rows of a step."""

from __future__ import annotations

from collections.abc import Sequence


def fair_shares(pending: Sequence[int], budget: int) -> list[int]:
    """Rows for each prompt, of which `pending` are still to be computed, the oldest prompt first.

    The oldest gets half, so that it always comes to its end; the rest goes to those that need
    least, so that a short prompt waits for no long one. What nobody else needs, the oldest gets.
    """
    shares = [0] * len(pending)
    if not pending or budget <= 0:
        return shares
    shares[0] = min(pending[0], -(-budget // 2))
    left = budget - shares[0]
    for i in sorted(range(1, len(pending)), key=lambda i: (pending[i], i)):
        shares[i] = min(left, pending[i])
        left -= shares[i]
    shares[0] += min(left, pending[0] - shares[0])
    return shares
