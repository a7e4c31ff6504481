"""The plan of a request's samplers: which of them do anything, and how many of a row's logits they
need. Knows no logits.

A bias or penalty that only lowers logits pushes a bounded number of tokens out of the best k, and
the tokens that move up come right after them: so a few candidates are enough for most requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from dllama.engine.sampling.processors import LogitsProcessor, bias_of
from dllama.engine.sampling.table import BY_NAME, SamplerSpec
from dllama.requests import SamplingParams
from dllama.step import MAX_CANDIDATES


def active_samplers(params: SamplingParams) -> list[SamplerSpec]:
    """The samplers that do anything, in their order. Before mirostat these are the processors and
    then the temperature."""
    named = [BY_NAME[name] for name in params.samplers]
    active = [sampler for sampler in named if sampler.is_active(params)]
    if params.mirostat == 0:
        return active
    temperature = BY_NAME["temperature"]
    processors = [sampler for sampler in active if sampler.processor is not None]
    return [*processors, *([temperature] if temperature.is_active(params) else [])]


@dataclass(frozen=True, slots=True)
class SamplerPlan:
    """First `processors`, in order, then the `n_kept` best tokens (0: all), then `rest`.

    `n_candidates` is the number of a row's largest logits that this needs, 0 for the whole row.
    """

    processors: list[LogitsProcessor]
    n_kept: int
    rest: list[SamplerSpec]
    n_candidates: int


def plan_for(params: SamplingParams, vocab_size: int) -> SamplerPlan:
    """The plan for one sequence, with logits processors of its own."""
    processors = bias_of(params)
    rest = active_samplers(params)
    while rest and rest[0].processor is not None:
        processors.append(rest[0].processor(params))
        rest = rest[1:]
    n_kept = 0
    if _leaves_best(rest, params):
        n_kept, rest = 1, []
    elif rest and rest[0].n_best is not None:
        n_kept, rest = rest[0].n_best(params), rest[1:]
    wanted = 0 if params.post_sampling_probs else params.n_probs or 0
    n_candidates = _candidates(processors, n_kept, wanted)
    return SamplerPlan(processors, n_kept, rest, n_candidates if n_candidates < vocab_size else 0)


def _leaves_best(samplers: list[SamplerSpec], params: SamplingParams) -> bool:
    """Whether together they leave only the largest logit."""
    for sampler in samplers:
        if sampler.only_best is not None and sampler.only_best(params):
            return True
        if not sampler.keeps_best:
            return False
    return False


def _candidates(processors: list[LogitsProcessor], n_kept: int, n_probs: int) -> int:
    """The number of largest logits that include the n_kept best after the processors and the
    n_probs best before them; 0 where no number up to MAX_CANDIDATES does."""
    lowered = [processor.max_lowered() for processor in processors]
    if n_kept == 0 or None in lowered:
        return 0
    n = max(n_kept + sum(count for count in lowered if count is not None), n_probs)
    return n if n <= MAX_CANDIDATES else 0
