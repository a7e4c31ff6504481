"""The types of flags that are seconds: bounded, since nobody means more and no clock takes it."""

from __future__ import annotations

import argparse
import math

MAX_SECONDS = 1_000_000.0  # eleven days; timeouts of the system end at 24
NEVER = "-1"


def seconds(text: str) -> float:
    """An argparse type: a number of seconds, 0 too."""
    value = _number(text)
    if not 0 <= value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds from 0 to {MAX_SECONDS:.0f}"
        )
    return value


def idle_seconds(text: str) -> float | None:
    """An argparse type: more than 0 seconds, or -1 for never."""
    value = _number(text)
    if value == float(NEVER):
        return None
    if not 0 < value <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds above 0 and up to {MAX_SECONDS:.0f}, and not "
            f"{NEVER}, which stands for never"
        )
    return value


def ping_seconds(text: str) -> float:
    """An argparse type: a whole number of seconds; infinite for 0 and below, which is never."""
    try:
        value = int(text)
    except ValueError:
        value = int(MAX_SECONDS) + 1
    if value > MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number of seconds up to {MAX_SECONDS:.0f}, and not {NEVER}, "
            "which stands for none"
        )
    return value if value > 0 else math.inf


def _number(text: str) -> float:
    """Returns the number that a text is, and nan, which no bounds hold, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
