"""Fields about guessed tokens, as llama-server names them: they change how soon an answer comes,
never what it says."""

from __future__ import annotations

from dataclasses import dataclass

from api.requests.fields import Body, Field, integer, number

MAX_DRAFT = 1024

N_MAX = Field(("speculative.n_max",), integer(0, MAX_DRAFT), None)
N_MIN = Field(("speculative.n_min",), integer(0, MAX_DRAFT), 0)
P_MIN = Field(("speculative.p_min",), number(0.0, 1.0), 0.0)
DRAFTING: tuple[Field[object, object], ...] = (N_MAX, N_MIN, P_MIN)


@dataclass(frozen=True, slots=True)
class Drafting:
    """At most `n_max` tokens are guessed at a time (None: what the engine likes, 0: none), none
    where they would be fewer than `n_min`, and none less likely than `p_min`."""

    n_max: int | None = None
    n_min: int = 0
    p_min: float = 0.0


def parse_drafting(body: Body) -> Drafting:
    """RequestError names the field at fault."""
    n_max, n_min = N_MAX.of(body), N_MIN.of(body)
    if n_max is not None:
        n_min = min(n_min, n_max)  # as llama-server does
    return Drafting(n_max, n_min, P_MIN.of(body))
