"""The flags of the engine, and how they become settings."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dllama.cli.flags.arguments import (
    add_kv_flag,
    add_model_flag,
    add_quantize_flag,
    draft_length,
    positive,
    speculation_length,
    whole,
)
from dllama.cli.flags.cluster import add_cluster_flags, shares_of
from dllama.cli.flags.settings import (
    DEFAULT_BATCH,
    DEFAULT_CONTEXT,
    DEFAULT_DRAFT,
    DEFAULT_STEP_TOKENS,
    MAX_BATCH,
    EngineSettings,
)
from dllama.errors import ConfigError


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --model and the flags of the engine."""
    model = parser.add_argument_group("model")
    add_model_flag(model)
    add_quantize_flag(model)
    model.add_argument(
        "-c", "--ctx-size", metavar="N", type=whole, default=0,
        help="tokens a conversation may have, prompt and answer (default: what the model was "
        f"trained for, at most {DEFAULT_CONTEXT})",
    )  # fmt: skip
    model.add_argument(
        "--kv-tokens", metavar="N", type=positive, default=0,
        help="tokens of all conversations together that have room in the KV cache (default: "
        "up to four full contexts, as memory allows)",
    )  # fmt: skip
    add_kv_flag(model)
    model.add_argument(
        "--max-batch", metavar="N", type=positive, default=DEFAULT_BATCH,
        help="sequences that run at once; others wait",
    )  # fmt: skip
    model.add_argument(
        "--step-tokens", metavar="N", type=positive, default=DEFAULT_STEP_TOKENS,
        help="prompt tokens computed between two tokens of running answers",
    )  # fmt: skip
    model.add_argument(
        "--speculate", metavar="N|auto|off", type=speculation_length, default="auto",
        help="tokens of an answer that are guessed from what stood before and checked in one step; "
        "the answer stays the same. auto: as many as save time",
    )  # fmt: skip
    model.add_argument(
        "--draft-model", "-md", "--model-draft", "--spec-draft-model", metavar="FILE",
        help="a small model of the same vocabulary that guesses where what stood before tells too "
        "little; the answer stays the same. It runs on this machine, between the other's steps",
    )  # fmt: skip
    model.add_argument(
        "--draft-max", "--draft", "--draft-n", "--spec-draft-n-max", metavar="N",
        type=draft_length, default=DEFAULT_DRAFT,
        help="tokens that --draft-model guesses at a time",
    )  # fmt: skip
    model.add_argument(
        "--context-shift", action=argparse.BooleanOptionalAction, default=False,
        help="let conversations outgrow the context: its older half is forgotten then",
    )  # fmt: skip
    add_cluster_flags(parser)


def engine_settings(args: argparse.Namespace) -> EngineSettings:
    """Returns the settings of the engine. Raises ConfigError where flags do not fit each other."""
    if args.max_batch > min(MAX_BATCH, args.step_tokens):
        raise ConfigError(
            f"--max-batch {args.max_batch} is more than {MAX_BATCH}, the most there can be, or "
            f"than --step-tokens {args.step_tokens}, of which every running sequence needs one"
        )
    if args.draft_model and not args.speculate:
        raise ConfigError(
            "--draft-model names a model that guesses, and --speculate off allows no guesses; "
            "leave one of them out"
        )
    return replace(
        runner_settings(args),
        ctx_size=args.ctx_size,
        kv_tokens=args.kv_tokens,
        max_batch=args.max_batch,
        speculate=args.speculate,
        draft_model=args.draft_model,
        draft_max=args.draft_max,
        quantize=args.quantize,
        context_shift=args.context_shift,
        slot_save_path=getattr(args, "slot_save_path", None),
    )


def runner_settings(args: argparse.Namespace) -> EngineSettings:
    """Returns what all commands that run a model take from their flags: its file, the machines and
    their links. Raises ConfigError where flags do not fit each other."""
    return EngineSettings(
        model=args.model,
        threads=args.threads,
        kv_type=args.kv_type,
        max_step_tokens=args.step_tokens,
        workers=args.workers,
        shares=shares_of(args),
        use_all=args.use_all,
        sync_type=args.sync_type,
        advertise=args.advertise,
        cluster_key=args.cluster_key,
        encrypts=not args.no_encrypt,
        name=getattr(args, "model_name", None),
    )
