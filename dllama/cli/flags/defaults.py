"""The flags that say what a request means where it says nothing: samplers, seed, length, grammar
and thoughts. They become fields of a request, under the names that requests have for them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dllama.cli.flags.arguments import add_keep_flag, add_length_flag
from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.cli.flags.settings import RequestDefaults
from dllama.errors import ConfigError

BUDGETS = (-1, 0)  # of thoughts: all, none
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FORMATS = ("auto", "none", "deepseek")


def json_object(text: str) -> dict[str, object]:
    """An argparse type: an object in JSON."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.60} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r:.60} is no JSON object")
    return value


def token_bias(text: str) -> list[object]:
    """An argparse type: a token id and a bias, as 15043+1 or 15043-1."""
    for sign in "+-":
        token, found, amount = text.partition(sign)
        if found and token.isdigit():
            try:
                return [int(token), float(sign + amount)]
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is no token id and bias, such as 15043+1")


def add_default_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the samplers' flags and a group of the other defaults."""
    add_sampling_flags(parser)
    group = parser.add_argument_group("defaults of requests")
    add_length_flag(group)
    add_keep_flag(group)
    group.add_argument("--ignore-eos", action="store_true", default=None,
                       help="answers go on after the end of the turn")  # fmt: skip
    group.add_argument(
        "-l", "--logit-bias", metavar="ID(+|-)BIAS", type=token_bias, action="append",
        help="makes a token likelier or less likely; may be given several times",
    )  # fmt: skip
    group.add_argument("--cache-prompt", action=argparse.BooleanOptionalAction, default=True,
                       help="reuse what was computed of earlier prompts")  # fmt: skip
    forms = group.add_mutually_exclusive_group()
    forms.add_argument("--grammar", metavar="GBNF", help="what answers may be")
    forms.add_argument("--grammar-file", metavar="FILE", type=Path, help="a file of --grammar")
    forms.add_argument("-j", "--json-schema", metavar="SCHEMA", help="a JSON schema of answers")
    forms.add_argument("-jf", "--json-schema-file", metavar="FILE", type=Path,
                       help="a file of --json-schema")  # fmt: skip
    add_thinking_flags(group)
    group.add_argument(
        "--pooling", choices=("none", "mean", "last", "cls", "rank"),
        help="how states of a text become its embedding (mean)",
    )  # fmt: skip
    group.add_argument("--embd-normalize", metavar="N", type=int, default=2,
                       help="the norm of embeddings: -1 none, 0 int16, 2 Euclid's")  # fmt: skip


def add_thinking_flags(group: argparse._ActionsContainer) -> None:
    """Adds the flags about the model's thoughts and the variables of its chat template."""
    group.add_argument("-rea", "--reasoning", choices=("on", "off", "auto"), default="auto",
                       help="whether the model thinks first, where its template knows")  # fmt: skip
    group.add_argument("--reasoning-format", choices=FORMATS, default="auto",
                       help="none leaves thoughts in the text")  # fmt: skip
    group.add_argument("--reasoning-budget", metavar="N", type=int, default=-1,
                       help="-1: thoughts as long as they are, 0: none")  # fmt: skip
    group.add_argument("--reasoning-effort", choices=EFFORTS,
                       help="how much it thinks, where its template knows")  # fmt: skip
    group.add_argument("--chat-template-kwargs", metavar="JSON", type=json_object, default={},
                       help="variables of the chat template")  # fmt: skip
    group.add_argument("--prefill-assistant", action=argparse.BooleanOptionalAction, default=True,
                       help="a last message of the assistant begins the answer")  # fmt: skip


def request_defaults(args: argparse.Namespace) -> RequestDefaults:
    """Returns the defaults that the flags set. Raises ConfigError where one cannot be followed."""
    fields = given_fields(args)
    if args.logit_bias:
        fields["logit_bias"] = args.logit_bias
    if args.ignore_eos:
        fields["ignore_eos"] = True
    if args.keep is not None:
        fields["n_keep"] = args.keep
    if not args.cache_prompt:
        fields["cache_prompt"] = False
    fields |= form_of(args)
    if args.pooling == "rank":
        raise ConfigError(
            "--pooling rank is for models that rank texts, and none of them runs here; use mean, "
            "last, cls or none."
        )
    return RequestDefaults(
        fields=fields,
        n_predict=args.n_predict if args.n_predict >= 0 else None,
        template_kwargs=template_kwargs(args),
        reasoning_format=args.reasoning_format,
        prefills=args.prefill_assistant,
        pooling=args.pooling,
        embd_normalize=args.embd_normalize,
    )


def form_of(args: argparse.Namespace) -> dict[str, object]:
    """Returns the field for the form of answers, if a flag names one."""
    if args.grammar or args.grammar_file:
        return {"grammar": args.grammar or text_of(args.grammar_file)}
    if args.json_schema or args.json_schema_file:
        return {"json_schema": args.json_schema or text_of(args.json_schema_file)}
    return {}


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The file {path} cannot be read: {error}.") from error


def template_kwargs(args: argparse.Namespace) -> dict[str, object]:
    """Returns the variables of the chat template. Raises ConfigError for a budget of thoughts that
    cannot be kept."""
    if args.reasoning_budget not in BUDGETS:
        raise ConfigError(
            f"--reasoning-budget {args.reasoning_budget} cannot be kept: thoughts are as long as "
            "the model makes them (-1), or there are none (0); name one of these."
        )
    kwargs = dict(args.chat_template_kwargs)
    if args.reasoning == "off" or args.reasoning_budget == 0 or args.reasoning_effort == "none":
        kwargs["enable_thinking"] = False
    elif args.reasoning == "on":
        kwargs["enable_thinking"] = True
    if args.reasoning_effort not in (None, "none"):
        kwargs["reasoning_effort"] = args.reasoning_effort
    return kwargs
