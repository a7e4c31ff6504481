"""The flags of the samplers, named like the fields of a request. A flag that is not given leaves
the default to the server."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.engine.sampling.names import (
    DEFAULT_ORDER,
    LETTERS,
    samplers_of_letters,
    samplers_of_names,
)
from dllama.requests import SAMPLING_NUMBERS, SamplingParams

if TYPE_CHECKING:  # which only an engine in this process needs
    from dllama.tokenizer import Tokenizer

# What llama-server calls the flags that have another name here.
ALIASES = {
    "temperature": ("--temp",), "typical_p": ("--typical",), "top_n_sigma": ("--top-nsigma",),
    "dynatemp_exponent": ("--dynatemp-exp",), "mirostat_eta": ("--mirostat-lr",),
    "mirostat_tau": ("--mirostat-ent",),
}  # fmt: skip


def sampler_list(text: str) -> tuple[str, ...]:
    """An argparse type: names with commas or semicolons between them, or letters."""
    if text in DEFAULT_ORDER or any(mark in text for mark in ",;"):
        found = samplers_of_names([name.strip() for name in text.replace(";", ",").split(",")])
    else:
        found = samplers_of_letters(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of {','.join(DEFAULT_ORDER)}, nor of the letters "
            f"{''.join(LETTERS)}"
        )
    return found


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Adds every sampler's flags as a group of their own."""
    group = parser.add_argument_group("sampling")
    for number in SAMPLING_NUMBERS:
        words = f"{number.bounds.help} ({number.default:g})"
        group.add_argument(
            number.flag, *ALIASES.get(number.name, ()), dest=number.name, type=number.type,
            help=words, metavar="X",
        )  # fmt: skip
    group.add_argument(
        "-s", "--seed", type=int, metavar="X", help="the same seed gives the same answer (-1: any)"
    )
    group.add_argument(
        "--dry-sequence-breaker", action="append", metavar="TEXT",
        help='ends a repetition; may be given several times (newline, ":", \'"\' and "*")',
    )  # fmt: skip
    group.add_argument(
        "--samplers", "--sampler-seq", "--sampling-seq", type=sampler_list, metavar="NAMES",
        help=f"which, in which order, by name or letter ({''.join(LETTERS)})",
    )  # fmt: skip


def given_fields(args: argparse.Namespace) -> dict[str, object]:
    """Returns the fields of a request that the flags set."""
    fields = {n.name: getattr(args, n.name) for n in SAMPLING_NUMBERS}
    fields["seed"] = args.seed
    fields["samplers"] = args.samplers
    fields["dry_sequence_breakers"] = args.dry_sequence_breaker
    return {name: value for name, value in fields.items() if value is not None}


def sampling_params(
    args: argparse.Namespace, tokenizer: Tokenizer, drawn_seed: int
) -> SamplingParams:
    """Returns the sampling parameters of the flags, with `drawn_seed` as seed where they name
    none."""
    from dllama.tokenizer.dry_breakers import DRY_BREAKERS, breaker_tokens

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
