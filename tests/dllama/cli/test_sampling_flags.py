"""Flags of the samplers, and what they come to."""

from __future__ import annotations

import argparse
from dataclasses import fields

import pytest

from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.cli.flags.sampling import add_sampling_flags, given_fields, sampling_params
from dllama.requests import SamplingParams
from dllama.tokenizer.tokenizer import Tokenizer


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_sampling_flags(parser)
    return parser.parse_args(words)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_gguf_metadata(bpe_metadata(352))


def test_no_flags_are_the_defaults(tokenizer: Tokenizer) -> None:
    assert given_fields(parse()) == {}
    assert sampling_params(parse(), tokenizer, 9) == SamplingParams(seed=9)
    assert sampling_params(parse("--seed", "-1"), tokenizer, 9) == SamplingParams(seed=9)
    assert sampling_params(parse("--seed", "4"), tokenizer, 9) == SamplingParams(seed=4)


def test_every_number_has_its_flag(tokenizer: Tokenizer) -> None:
    others = {"logit_bias", "dry_breakers", "dry_phrases", "samplers", "n_probs"}
    for field in fields(SamplingParams):
        if field.name in others or field.name == "post_sampling_probs":
            continue
        args = parse(f"--{field.name.replace('_', '-')}", "1")
        assert given_fields(args) == {field.name: 1}
        assert getattr(sampling_params(args, tokenizer, 0), field.name) == 1


def test_breakers_become_tokens(tokenizer: Tokenizer) -> None:
    params = sampling_params(parse("--dry-multiplier", "1"), tokenizer, 0)
    assert tokenizer.encode("\n")[0] in params.dry_breakers
    words = ("--dry-multiplier", "1", "--dry-sequence-breaker", "Z", "--dry-sequence-breaker", "Q")
    params = sampling_params(parse(*words), tokenizer, 0)
    assert {tokenizer.encode("Z")[0], tokenizer.encode("Q")[0]} <= set(params.dry_breakers)
    assert tokenizer.encode("\n")[0] not in params.dry_breakers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("kt", ("top_k", "temperature")),
        ("edskypmhxt", SamplingParams().samplers),
        ("top_k;temp", ("top_k", "temperature")),
        ("nucleus, min-p", ("top_p", "min_p")),
        ("xtc", ("xtc",)),
    ],
)
def test_samplers_by_name_or_letter(text: str, names: tuple[str, ...]) -> None:
    assert given_fields(parse("--samplers", text)) == {"samplers": names}


@pytest.mark.parametrize("text", ["top_k,magic", "kq", "magic"])
def test_unknown_samplers(text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="is no list of"):
        parse("--samplers", text)
