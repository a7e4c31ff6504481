"""How conversations share the context, in llama-server's flags: --parallel, --kv-unified,
--batch-size, and the types of its cache."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dllama.cli.flags.arguments import positive
from dllama.cli.flags.settings import EngineSettings
from dllama.errors import ConfigError
from dllama.kv_type import KvType


def slots(text: str) -> int:
    """An argparse type: a number of conversations; -1 leaves it to --max-batch."""
    return 0 if text == "-1" else positive(text)


def add_context_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contexts, as llama-server shares them")
    group.add_argument(
        "-np", "--parallel", metavar="N", type=slots, default=0,
        help="N conversations at once, which share --ctx-size in equal parts",
    )  # fmt: skip
    group.add_argument(
        "-kvu", "--kv-unified", action="store_true", default=None,
        help="let each of them have all of --ctx-size, as long as there is room",
    )  # fmt: skip
    group.add_argument(
        "-no-kvu", "--no-kv-unified", action="store_false", dest="kv_unified",
        help=argparse.SUPPRESS,
    )  # fmt: skip
    group.add_argument(
        "--kv-unified-per-slot", metavar="N", type=positive, default=0,
        help="tokens that each of them may have of it",
    )  # fmt: skip
    group.add_argument(
        "-b", "--batch-size", metavar="N", type=positive, default=0,
        help="lowers --step-tokens to N",
    )  # fmt: skip
    for short, name, what in (
        ("-ctk", "--cache-type-k", "keys"),
        ("-ctv", "--cache-type-v", "values"),
    ):
        group.add_argument(
            short, name, metavar="TYPE",
            help=f"what {what} are kept as, f16, q8_0 or f32; the same for both (see --kv-type)",
        )  # fmt: skip


def with_context_flags(settings: EngineSettings, args: argparse.Namespace) -> EngineSettings:
    """Returns the settings with what these flags change. Raises ConfigError for types of a cache
    that there are not."""
    n = args.parallel or settings.max_batch
    settings = replace(settings, max_batch=n, kv_type=kv_type_of(args) or settings.kv_type)
    if args.batch_size:
        steps = max(n, min(args.batch_size, settings.max_step_tokens))
        settings = replace(settings, max_step_tokens=steps)
    whole = settings.ctx_size
    if args.kv_unified_per_slot:
        settings = replace(settings, ctx_size=args.kv_unified_per_slot)
    elif args.parallel and whole and not args.kv_unified:
        settings = replace(settings, ctx_size=max(1, whole // args.parallel))
    if whole and not settings.kv_tokens and (args.parallel or args.kv_unified):
        settings = replace(settings, kv_tokens=max(whole, settings.ctx_size))
    return settings


def kv_type_of(args: argparse.Namespace) -> str | None:
    """Returns the one type of keys and values that the flags name, None for none."""
    given: set[str] = {
        kind.lower() for kind in (args.cache_type_k, args.cache_type_v) if kind is not None
    }
    if not given:
        return None
    known = [str(kind) for kind in KvType]
    if len(given) > 1 or not given <= set(known):
        raise ConfigError(
            f"--cache-type-k and --cache-type-v ask for {' and '.join(sorted(given))}, but keys "
            f"and values are kept as one type here, {' or '.join(known)}; name one of these for "
            "both, or leave the flags out."
        )
    return given.pop()
