"""The flags about the log, which every program of a cluster has."""

from __future__ import annotations

import argparse

from dllama.logs.settings import LEVELS, LogFormat, LogSettings


def log_level(text: str) -> str:
    """An argparse type: the least level that is told."""
    level = text.lower()
    if level not in LEVELS:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is no level of the log; choose {', '.join(LEVELS[:-1])} or {LEVELS[-1]}"
        )
    return level


def log_format(text: str) -> LogFormat:
    """An argparse type: as what the log is written."""
    try:
        return LogFormat(text.lower())
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r:.40} is no format of the log; choose {' or '.join(LogFormat)}"
        ) from None


def add_log_flags(parser: argparse._ActionsContainer, level: str) -> None:
    """Adds --log-level, which is `level` where it is not given, and --log-format."""
    parser.add_argument(
        "--log-level", metavar="|".join(LEVELS), type=log_level, default=level,
        help="how much to tell on stderr",
    )  # fmt: skip
    parser.add_argument(
        "--log-format", metavar="|".join(LogFormat), type=log_format, default=LogFormat.TEXT,
        help="json: each line is an object with time, level, logger, message, request_id, model "
        "and rank",
    )  # fmt: skip
    parser.add_argument(
        "--log-jsonl", dest="log_format", action="store_const", const=LogFormat.JSON,
        default=LogFormat.TEXT, help=argparse.SUPPRESS,
    )  # fmt: skip  # llama-server's name of it


def log_settings(args: argparse.Namespace) -> LogSettings:
    """Returns how to log. -v, where a program has it, tells everything."""
    level = "debug" if getattr(args, "verbose", False) else args.log_level
    return LogSettings(level, str(args.log_format))
