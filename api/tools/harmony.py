"""Harmony, the format of gpt-oss: every message of an answer is on a channel. Thoughts are on
`analysis`, what the user is to read on `final` or, before a call, on `commentary`, and calls on
`commentary` too, with the function that they go to as their recipient.

A message is START, a header, MESSAGE, its text, and END; the last one of a turn ends with a token
that ends the answer. Source: OpenAI's description of the format, and the models' chat template."""

from __future__ import annotations

import re
from typing import NamedTuple

START, CHANNEL, MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
CONSTRAIN, END, CALL, RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
MARKS = (START, CHANNEL, MESSAGE, CONSTRAIN, END)
"""Control tokens that do not end an answer."""

ANALYSIS, COMMENTARY, FINAL = "analysis", "commentary", "final"
THOUGHTS = f"{CHANNEL}{ANALYSIS}{MESSAGE}"
ASSISTANT = "assistant"
FUNCTIONS = "functions."

_CHANNEL = re.compile(re.escape(CHANNEL) + r"\s*([A-Za-z_]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_ROLE = re.compile(r"\s*([A-Za-z_.]*)")


class Header(NamedTuple):
    """Who speaks, on which channel, to whom; "" where a header does not say it."""

    role: str
    channel: str
    recipient: str

    @classmethod
    def of(cls, text: str) -> Header:
        """Reads a header. Its parts may come in any order after the role."""
        role = _ROLE.match(text)
        channel, recipient = _CHANNEL.search(text), _RECIPIENT.search(text)
        return cls(
            role.group(1) if role else "",
            channel.group(1) if channel else "",
            recipient.group(1) if recipient else "",
        )

    @property
    def function(self) -> str:
        """The name of the function that is called; "" for a message to nobody."""
        return self.recipient.removeprefix(FUNCTIONS)


class Opening(NamedTuple):
    """What a prompt has begun of the message that an answer goes on with: its header so far, and
    whether its text has begun."""

    header: str = ASSISTANT
    is_in_text: bool = False

    @property
    def is_within_thoughts(self) -> bool:
        return self.is_in_text and Header.of(self.header).channel == ANALYSIS


def opening_of(prompt: str) -> Opening:
    """Returns what a prompt has begun."""
    _, _, last = prompt.rpartition(START)
    header, mark, _ = last.partition(MESSAGE)
    return Opening(header, bool(mark))
