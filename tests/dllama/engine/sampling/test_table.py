"""A sampler is a row of the table and a field of SamplingParams: the API, the wire and the command
line know it by these alone."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace

import pytest

from api.requests.sampling import sampling_of_body
from cluster.wire.engine_messages import decode_message, encode_message
from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.engine.sampling.names import (
    DEFAULT_ORDER,
    LETTERS,
    SAMPLER_NAMES,
    samplers_of_letters,
    samplers_of_names,
)
from dllama.engine.sampling.parameters import Number
from dllama.engine.sampling.table import SAMPLERS
from dllama.engine.submit_check import check_sampling
from dllama.errors import RequestError
from dllama.requests import SAMPLING_NUMBERS, SamplingParams, Submit

NAMES = [number.name for number in SAMPLING_NUMBERS]


def test_every_number_is_described() -> None:
    defaults = SamplingParams()
    plain = {f.name for f in fields(defaults) if type(getattr(defaults, f.name)) in (int, float)}
    assert plain == {*NAMES, "seed"}


@pytest.mark.parametrize("number", SAMPLING_NUMBERS, ids=NAMES)
def test_a_number_is_a_field_a_flag_and_a_part_of_the_message(number: Number) -> None:
    low, high = (max(end, -9) for end in (number.bounds.low, number.bounds.high))
    value = number.type(min((low + min(high, 9)) / 2 or 1, high))
    assert sampling_of_body({number.name: value}) == {number.name: value}
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)
    assert given_fields(parser.parse_args([number.flag, str(value)])) == {number.name: value}
    params = replace(SamplingParams(), **{number.name: value})  # type: ignore[arg-type]
    check_sampling(params, 100)
    sent = Submit("a", [1], params)
    assert decode_message(encode_message(sent)) == sent


@pytest.mark.parametrize("number", SAMPLING_NUMBERS, ids=NAMES)
def test_a_requested_number_out_of_its_range_means_the_nearest(number: Number) -> None:
    low, high = number.bounds.low, number.bounds.high
    below, above = number.type(low - 1), number.type(1e12)
    if number.bounds.is_hard:
        with pytest.raises(RequestError) as refused:
            sampling_of_body({number.name: below})
        assert refused.value.param == number.name
    elif number.name == "dry_base":
        assert sampling_of_body({number.name: below}) == {number.name: number.default}
    else:
        assert sampling_of_body({number.name: below}) == {number.name: low}
    [near] = sampling_of_body({number.name: above}).values()
    check_sampling(replace(SamplingParams(), **{number.name: near}), 100)  # type: ignore[arg-type]
    assert near == min(high, 2**31 - 1)
    for wrong in ("x", True, [], {}, 1.5 if number.type is int else "1"):
        with pytest.raises(RequestError) as refused:
            sampling_of_body({number.name: wrong})
        assert refused.value.param == number.name
    outside = number.type(low - 1)
    with pytest.raises(RequestError, match=f"{number.name} is"):
        check_sampling(replace(SamplingParams(), **{number.name: outside}), 100)  # type: ignore[arg-type]


def test_names_letters_and_spellings_are_unique() -> None:
    assert tuple(sampler.name for sampler in SAMPLERS) == DEFAULT_ORDER
    assert len(LETTERS) == len(SAMPLER_NAMES) == len(set(DEFAULT_ORDER))
    for sampler in SAMPLER_NAMES:
        assert samplers_of_letters(sampler.letter) == (sampler.name,)
        for spelling in (sampler.name, sampler.name.replace("_", "-"), *sampler.aliases):
            assert samplers_of_names([spelling]) == (sampler.name,)
    assert samplers_of_letters("?") is None and samplers_of_names(["magic"]) is None


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_a_sampler_has_one_function(sampler) -> None:
    functions = (sampler.processor, sampler.filter, sampler.random_filter)
    assert sum(function is not None for function in functions) == 1
    assert not sampler.is_active(SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)), (
        "there are parameters that switch it off"
    )
