"""Flags that several commands share, and how they become settings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import psutil

import dllama
from cluster.security.cluster_key import parse_cluster_key
from dllama import __version__
from dllama.cli.flags.settings import (
    AUTO_SPECULATE,
    DEFAULT_BATCH,
    DEFAULT_CONTEXT,
    DEFAULT_DRAFT,
    DEFAULT_STEP_TOKENS,
    MAX_BATCH,
    MAX_SPECULATE,
    EngineSettings,
)
from dllama.errors import ConfigError
from dllama.host.container import cpu_limit
from dllama.kv import KvType

DEFAULT_MODEL = Path(dllama.__file__).parent / "data" / "dllama-demo.q8_0.gguf"
"""Trained by examples/demo_model; what answers where no model is named."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written and shows defaults, but not where there are none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default in (None, argparse.SUPPRESS, (), 0, "") or action.nargs == 0
        if has_none or action.dest == "model":  # that one says so in words
            return action.help
        return super()._get_help_string(action)


def make_parser(prog: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=HelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def whole(text: str) -> int:
    """An argparse type: a whole number from 0 on."""
    return 0 if text == "0" else positive(text)


def speculation_length(text: str) -> int:
    """An argparse type: the number of tokens drafted at a time, `auto` or `off`."""
    named = {"auto": AUTO_SPECULATE, "off": 0}
    number = named[text] if text in named else int(text) if text.isdigit() else MAX_SPECULATE + 1
    if number > MAX_SPECULATE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither auto nor off nor a number up to {MAX_SPECULATE}"
        )
    return number


def draft_length(text: str) -> int:
    """An argparse type: the number of tokens that a draft model drafts at a time."""
    if not text.isdigit() or not 1 <= int(text) <= MAX_SPECULATE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of tokens from 1 to {MAX_SPECULATE}"
        )
    return int(text)


def port_number(text: str) -> int:
    """An argparse type: a TCP port; 0 picks a free one."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; choose one up to 65535")
    return int(text)


def comma_list(text: str) -> tuple[str, ...]:
    """An argparse type: words between commas."""
    return tuple(word for word in text.replace(" ", ",").split(",") if word)


def worker_list(text: str) -> tuple[str, ...]:
    """An argparse type: names of workers between commas, at least one: a variable of a script that
    is empty by mistake is to start no lone server."""
    found = comma_list(text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} names no machine; write HOST or HOST:PORT, or leave the flag out to compute "
            "on this machine alone"
        )
    return found


def own_address(text: str) -> str:
    """An argparse type: the name or address of a machine, without a port."""
    from cluster.sockets import parse_address  # brings in zmq, which most commands do without

    host = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    has_port = not host.endswith("]") and ":" in host
    try:
        address = None if has_port else parse_address(host)
    except ConfigError:
        address = None
    if address is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name or address of a machine; write it without a port, such as "
            "10.0.0.2"
        )
    return address.host


def share_list(text: str) -> tuple[float, ...]:
    """An argparse type: positive numbers between commas."""
    try:
        shares = tuple(float(word) for word in comma_list(text))
    except ValueError:
        shares = ()
    if not shares or any(not s > 0 or s == float("inf") for s in shares):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of positive numbers such as 3,2,1: one for the root, then "
            "one for each worker"
        )
    return shares


def default_threads() -> int:
    """Returns the number of physical cores this process may use: a second thread on a core only
    adds noise, and a thread beyond a container's processor time only waits."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = cpu_limit()
    share = physical if quota is None else int(quota)
    return max(1, min(physical, allowed or physical, share))


def add_model_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --model, for the commands that use the model in the package by default."""
    parser.add_argument(
        "-m", "--model", metavar="FILE", default=str(DEFAULT_MODEL),
        help="a GGUF or distributed-llama .m file (default: the small model that comes with "
        "dllama, which knows dllama and not much else)",
    )  # fmt: skip


def add_kv_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --kv-type, for the commands that compute."""
    parser.add_argument(
        "--kv-type", choices=[str(kind) for kind in KvType], default=str(KvType.F16),
        help="what keys and values are kept as: q8_0 takes 0.53 of the memory of f16, rounded",
    )  # fmt: skip


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --model and the flags of the engine."""
    model = parser.add_argument_group("model")
    add_model_flag(model)
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


def add_cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --workers and the flags of the cluster."""
    cluster = parser.add_argument_group("machines")
    cluster.add_argument(
        "-t", "--threads", metavar="N", type=positive, default=default_threads(),
        help="compute threads on this machine; workers say their own",
    )  # fmt: skip
    cluster.add_argument(
        "-w", "--workers", metavar="HOST[:PORT],...", type=worker_list, default=(),
        help="machines that run dllama-worker; this one computes too",
    )  # fmt: skip
    cluster.add_argument(
        "--shares", metavar="A,B,...", type=share_list, default=(),
        help="how much of the model each machine holds, this one first: 3,2,1 (default: equal)",
    )  # fmt: skip
    cluster.add_argument(
        "--sync-type", choices=("exact", "f32", "bf16", "q80"), default="exact",
        help="how partial sums travel: exact gives the same bits on any number of nodes and is as "
        "large as f32; bf16 is half, q80 a quarter of that",
    )  # fmt: skip
    cluster.add_argument(
        "--advertise", metavar="HOST", type=own_address,
        help="how workers reach this machine, where they cannot find out by themselves",
    )  # fmt: skip
    add_security_flags(cluster)


def add_security_flags(parser: argparse._ActionsContainer) -> None:
    """Adds the flags of the links between machines, which every node has."""
    parser.add_argument(
        "--cluster-key", metavar="KEY|@FILE", type=cluster_key,
        help="what `dllama key` printed, or a file that holds it: only nodes with the same key are "
        "spoken to (default: $DLLAMA_CLUSTER_KEY)",
    )  # fmt: skip
    parser.add_argument(
        "--no-encrypt", action="store_true",
        help="leave links to other machines plain: prompts, answers and weights can be read on the "
        "network. Every node has to say so",
    )  # fmt: skip


def cluster_key(text: str) -> str:
    """An argparse type: a cluster key or @FILE; returns the key. Errors do not repeat it."""
    try:
        return parse_cluster_key(text).text()
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def engine_settings(args: argparse.Namespace) -> EngineSettings:
    """Returns the settings of the engine. Raises ConfigError where flags do not fit each other."""
    if args.shares and len(args.shares) != len(args.workers) + 1:
        raise ConfigError(
            f"--shares names {len(args.shares)} machines, but there are {len(args.workers) + 1}: "
            "this one first, then each of --workers in order"
        )
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
    return EngineSettings(
        model=args.model,
        threads=args.threads,
        ctx_size=args.ctx_size,
        kv_tokens=args.kv_tokens,
        kv_type=args.kv_type,
        max_batch=args.max_batch,
        max_step_tokens=args.step_tokens,
        speculate=args.speculate,
        draft_model=args.draft_model,
        draft_max=args.draft_max,
        workers=args.workers,
        shares=args.shares,
        sync_type=args.sync_type,
        advertise=args.advertise,
        cluster_key=args.cluster_key,
        encrypts=not args.no_encrypt,
        context_shift=args.context_shift,
        slot_save_path=getattr(args, "slot_save_path", None),
    )
