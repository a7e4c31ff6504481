"""Flags that several commands share, and how they become settings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import dllama
from dllama.cli.flags.settings import (
    AUTO_SPECULATE,
    MAX_SPECULATE,
)
from dllama.errors import ConfigError
from dllama.host.container import cpu_limit, n_cores

DEFAULT_MODEL = Path(dllama.__file__).parent / "data" / "dllama-demo.q8_0.gguf"
"""Trained by examples/demo_model; what answers where no model is named."""

MOST_THREADS = 1024


def positive(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def thread_count(text: str) -> int:
    """An argparse type: a number of compute threads. Each has a buffer of its own, so a number that
    was mistyped would be told as a lack of memory."""
    number = positive(text)
    if number > MOST_THREADS:
        raise argparse.ArgumentTypeError(f"{number} threads are more than {MOST_THREADS}")
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


def default_threads() -> int:
    """Returns the number of physical cores this process may use: a second thread on a core only
    adds noise, and a thread beyond a container's processor time only waits."""
    import psutil  # which few commands need

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = cpu_limit()
    share = physical if quota is None else int(quota)
    return max(1, min(physical, n_cores(), share))


def add_model_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --model, for the commands that use the model in the package by default."""
    parser.add_argument(
        "-m", "--model", metavar="FILE|NAME", default=str(DEFAULT_MODEL),
        help="a GGUF or distributed-llama .m file, a folder with config.json and safetensors "
        "files, or a name as dllama pull takes it (default: the small model that comes with "
        "dllama, which knows dllama and not much else)",
    )  # fmt: skip
    parser.add_argument(
        "--pull", action="store_true",
        help="download the model if it is not here; on a terminal that is done anyway",
    )  # fmt: skip


def predicted(text: str) -> int:
    """An argparse type: a number of tokens; -1 and -2 are without a limit."""
    if text in ("-1", "-2"):
        return -1
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens, nor -1 for no limit")
    return int(text)


def add_length_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --n-predict, for the commands that answer."""
    parser.add_argument(
        "-n", "--n-predict", "--predict", "--max-tokens", metavar="N", type=predicted, default=-1,
        help="tokens of an answer, -1: as far as the context goes",
    )  # fmt: skip


def add_keep_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --keep, for the commands that have --context-shift."""
    parser.add_argument(
        "--keep", metavar="N", type=int,
        help="tokens of the prompt that a --context-shift keeps, -1: all",
    )  # fmt: skip


def add_tokenizer_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --tokenizer."""
    parser.add_argument(
        "--tokenizer", metavar="FILE", type=Path,
        help="a .t tokenizer, or a GGUF to take it from (default: the model file's own)",
    )  # fmt: skip


def add_text_flags(parser: argparse._ActionsContainer) -> None:
    """Adds the flags about the text around a model, for the commands that read text."""
    add_tokenizer_flag(parser)
    parser.add_argument(
        "--chat-template", metavar="FILE|NAME|TEXT",
        help="a Jinja file, a built-in name such as chatml, or Jinja itself (default: the "
        "model's own)",
    )  # fmt: skip
    parser.add_argument(
        "--chat-template-file", metavar="FILE", help="the same, as llama-server calls it"
    )


def add_quantize_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --quantize, for the commands that load weights."""
    parser.add_argument(
        "--quantize", metavar="TYPE",
        help="make float weights into q8_0, q4_0 or another type as they are loaded: less memory, "
        "rounded (default: as the files have them)",
    )  # fmt: skip


def add_kv_flag(parser: argparse._ActionsContainer) -> None:
    """Adds --kv-type, for the commands that compute."""
    from dllama.kv_type import KvType

    parser.add_argument(
        "--kv-type", choices=[str(kind) for kind in KvType], default=str(KvType.F16),
        help="what keys and values are kept as: q8_0 takes 0.53 of the memory of f16, rounded, f32 "
        "twice as much",
    )  # fmt: skip
