"""Command lines of deployment files, read by our own parsers."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dllama.cli.flags.root import build_parser as root_parser
from dllama.cli.flags.worker import build_parser as worker_parser

HOUSE = Path(__file__).parents[2]
DEPLOY = HOUSE / "deploy"
PARSERS = {"dllama-root": root_parser, "dllama-worker": worker_parser}
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The flags of a program's command line; a test fails where it would not start."""
    program, *flags = words
    return PARSERS[Path(program).name]().parse_args(flags)


def split(command: str, variables: Mapping[str, str] | None = None) -> list[str]:
    """The words of a command, with ${NAME:-default} put in as compose does."""
    given = variables or {}
    return shlex.split(_VARIABLE.sub(lambda v: given.get(v[1], v[2] or ""), command))


def seconds(text: str) -> float:
    """A time as compose and systemd write it."""
    return float(text.removesuffix("s"))
