"""What a request's samplers come down to: which of them do anything, and how many of a row's
logits they need. Knows no logits.

Bias and penalties that only lower logits can push at most so many tokens out of the best k, and
what moves up is found right behind them: so a few candidates do for most requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dllama.engine.dry import DryPenalties, has_dry
from dllama.engine.logit_edits import Edit, bias_of
from dllama.engine.penalties import Penalties, has_penalties
from dllama.engine.temperature import has_temperature, is_greedy
from dllama.requests import SamplingParams
from dllama.step import MAX_CANDIDATES

_MAX_XTC_THRESHOLD = 0.5  # above it no two tokens can be likely enough

# Whether a sampler of `SamplingParams.samplers` does anything.
_IS_ACTIVE: dict[str, Callable[[SamplingParams], bool]] = {
    "penalties": has_penalties,
    "dry": has_dry,
    "top_n_sigma": lambda params: params.top_n_sigma > 0.0,
    "top_k": lambda params: params.top_k > 0,
    "typ_p": lambda params: params.typical_p < 1.0,
    "top_p": lambda params: params.top_p < 1.0,
    "min_p": lambda params: params.min_p > 0.0,
    "xtc": lambda params: (
        params.xtc_probability > 0.0 and params.xtc_threshold <= _MAX_XTC_THRESHOLD
    ),
    "temperature": has_temperature,
}
EDITS: dict[str, Callable[[SamplingParams], Edit]] = {
    "penalties": Penalties,
    "dry": DryPenalties,
}
_KEEP_THE_BEST = {"top_n_sigma", "top_k", "top_p", "min_p"}
_WITH_MIROSTAT = {"penalties", "dry", "temperature"}


def active_samplers(params: SamplingParams) -> list[str]:
    """The samplers that do anything, in their order; "mirostat" ends the list where it is on."""
    names = [name for name in params.samplers if _IS_ACTIVE[name](params)]
    if params.mirostat == 0:
        return names
    names = [name for name in names if name in _WITH_MIROSTAT and name != "temperature"]
    return [*names, *(["temperature"] if has_temperature(params) else []), "mirostat"]


@dataclass(frozen=True, slots=True)
class SamplerPlan:
    """First `edits`, in order, then the `n_kept` best of what comes out (0: all), then `rest`.

    `n_candidates` is how many of a row's largest logits that needs, 0 for the whole row.
    """

    edits: list[Edit]
    n_kept: int
    rest: list[str]
    n_candidates: int


def plan_for(params: SamplingParams, vocab_size: int) -> SamplerPlan:
    """How the tokens of one sequence are chosen; the edits are new, and follow no other."""
    edits = bias_of(params)
    names = active_samplers(params)
    while names and names[0] in EDITS:
        edits.append(EDITS[names.pop(0)](params))
    if _takes_the_best(names, params):
        n_kept, names = 1, []
    elif names and names[0] == "top_k":
        n_kept, names = params.top_k, names[1:]
    else:
        n_kept = 0
    wanted = 0 if params.post_sampling_probs else params.n_probs or 0
    n_candidates = _candidates(edits, n_kept, wanted)
    return SamplerPlan(edits, n_kept, names, n_candidates if n_candidates < vocab_size else 0)


def _takes_the_best(names: list[str], params: SamplingParams) -> bool:
    """Whether the samplers come down to the largest logit."""
    if "temperature" not in names or not is_greedy(params):
        return False
    before = names[: names.index("temperature")]
    return all(name in _KEEP_THE_BEST for name in before)


def _candidates(edits: list[Edit], n_kept: int, n_probs: int) -> int:
    """How many of the largest logits hold the n_kept best after the edits, and the n_probs
    best before them; 0 where no number up to MAX_CANDIDATES does."""
    lowered = [edit.max_lowered() for edit in edits]
    if n_kept == 0 or None in lowered:
        return 0
    n = max(n_kept + sum(count for count in lowered if count is not None), n_probs)
    return n if n <= MAX_CANDIDATES else 0
