"""The flags that say how tokens are chosen, named like the fields of a request. A flag that is not
given leaves the default to whoever answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

from dllama.requests import SAMPLERS, SamplingParams
from dllama.sampler_names import DRY_BREAKERS, LETTERS, samplers_of_letters, samplers_of_names
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.dry_breakers import breaker_tokens


def sampler_list(text: str) -> tuple[str, ...]:
    """An argparse type: names with commas or semicolons between them, or letters."""
    if text in SAMPLERS or any(mark in text for mark in ",;"):
        found = samplers_of_names([name.strip() for name in text.replace(";", ",").split(",")])
    else:
        found = samplers_of_letters(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of {','.join(SAMPLERS)}, nor of the letters {''.join(LETTERS)}"
        )
    return found


_NUMBERS: tuple[tuple[str, Callable[[str], float], str], ...] = (
    ("temperature", float, "0 takes the likeliest token (0.8)"),
    ("top_k", int, "choose among the K likeliest, 0: all (40)"),
    ("top_p", float, "choose among the likeliest that make up P (0.95)"),
    ("min_p", float, "not those below P times the likeliest (0.05)"),
    ("seed", int, "the same seed gives the same answer"),
    ("top_n_sigma", float, "not those N standard deviations below the best, -1: off"),
    ("typical_p", float, "choose among the most typical that make up P, 1: off"),
    ("xtc_probability", float, "how often the top choices are left out, 0: never"),
    ("xtc_threshold", float, "how likely a top choice is (0.1)"),
    ("dynatemp_range", float, "temperature by entropy, so far up and down, 0: off"),
    ("dynatemp_exponent", float, "how entropy becomes temperature (1)"),
    ("repeat_penalty", float, "divides the logits of tokens seen lately, 1: off"),
    ("repeat_last_n", int, "how many tokens are lately, -1: all (64)"),
    ("presence_penalty", float, "taken off tokens seen lately, 0: off"),
    ("frequency_penalty", float, "taken off each time that one was seen, 0: off"),
    ("dry_multiplier", float, "how strongly repetitions are avoided, 0: off"),
    ("dry_base", float, "how fast that grows with their length (1.75)"),
    ("dry_allowed_length", int, "repetitions so short cost nothing (2)"),
    ("dry_penalty_last_n", int, "how far back repetitions are looked for, -1: all (64)"),
    ("mirostat", int, "1 or 2 keeps the surprise near a target, 0: off"),
    ("mirostat_tau", float, "the target, in bits (5)"),
    ("mirostat_eta", float, "how fast it is followed (0.1)"),
    ("min_keep", int, "tokens that every cut leaves, 0: one"),
)


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every sampler's flags as a group of their own."""
    group = parser.add_argument_group("sampling")
    for name, kind, words in _NUMBERS:
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=words, metavar="X")
    group.add_argument(
        "--dry-sequence-breaker", action="append", metavar="TEXT",
        help='ends a repetition; may be given several times (newline, ":", \'"\' and "*")',
    )  # fmt: skip
    group.add_argument(
        "--samplers", type=sampler_list, metavar="NAMES",
        help=f"which, in which order, by name or letter ({''.join(LETTERS)})",
    )  # fmt: skip


def given_fields(args: argparse.Namespace) -> dict[str, object]:
    """The fields of a request that the flags set."""
    fields = {name: getattr(args, name) for name, _, _ in _NUMBERS}
    fields["samplers"] = args.samplers
    fields["dry_sequence_breakers"] = args.dry_sequence_breaker
    return {name: value for name, value in fields.items() if value is not None}


def sampling_params(
    args: argparse.Namespace, tokenizer: Tokenizer, drawn_seed: int
) -> SamplingParams:
    """What the flags come to for an engine, with `drawn_seed` where they name none."""
    fields = given_fields(args)
    if fields.get("seed", -1) == -1:  # as in the API: any
        fields["seed"] = drawn_seed
    breakers = fields.pop("dry_sequence_breakers", DRY_BREAKERS)
    params = replace(SamplingParams(), **fields)  # type: ignore[arg-type]  # as argparse read them
    if params.dry_multiplier <= 0.0:
        return params
    assert isinstance(breakers, list | tuple)
    tokens, phrases = breaker_tokens(tokenizer, [text for text in breakers if text])
    return replace(params, dry_breakers=tokens, dry_phrases=phrases)
