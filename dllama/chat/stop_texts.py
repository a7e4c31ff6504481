"""Finds the texts that end an assistant's turn: those that a chat template writes after it."""

from __future__ import annotations

import re
from itertools import product

from dllama.chat.chat_template import ChatTemplate
from dllama.chat.traits import PROBE_TOOL
from dllama.errors import TemplateError
from dllama.tokenizer import Tokenizer

_ANSWER = "Qanswertext"
_QUESTION = {"role": "user", "content": "Qquestiontext"}
_THOUGHT = "Qthoughttext"
_TURN = {"role": "assistant", "content": _ANSWER, "reasoning_content": _THOUGHT}
_CONVERSATIONS = ([_QUESTION, _TURN, _QUESTION], [_QUESTION, _TURN])
_SPECIAL = re.compile(r"\s*(<\|[^|<>]+\|>|<｜[^｜]+｜>|</?[A-Za-z_]+>|\[/?[A-Z_]+\])")


def stop_texts(template: ChatTemplate) -> tuple[str, ...]:
    """Returns texts spelled like special tokens that follow an assistant's words in the template's
    prompts, such as "<|eot_id|>"; empty where it writes none."""
    found = (_SPECIAL.match(tail) for tail in _tails(template))
    return tuple(dict.fromkeys(match.group(1) for match in found if match))


def template_stop_ids(template: ChatTemplate, tokenizer: Tokenizer) -> frozenset[int]:
    """The special tokens that follow an assistant's words in the template's prompts, but for those
    that follow its thoughts too: they end a part of a turn."""
    ends = _first_specials(_tails(template), tokenizer)
    return ends - _first_specials(_tails(template, _THOUGHT), tokenizer)


def _first_specials(tails: list[str], tokenizer: Tokenizer) -> frozenset[int]:
    """Returns the special tokens that the texts begin with, white space left out."""
    found: set[int] = set()
    for tail in tails:
        for token in tokenizer.encode(tail, parse_special=True):
            if tokenizer.is_special(token):
                if token != tokenizer.bos_id or token == tokenizer.eos_id:
                    found.add(token)
                break
            if tokenizer.token_text(token).strip():
                break
    return frozenset(found)


def _tails(template: ChatTemplate, words: str = _ANSWER) -> list[str]:
    """Returns the text after the assistant's words, or its thoughts, for each conversation that the
    template takes, without tools and with one: a model may have a template for each."""
    tails: list[str] = []
    for conversation, tools in product(_CONVERSATIONS, (None, [PROBE_TOOL])):
        try:
            prompt = template.render(conversation, tools, False)
        except TemplateError:
            continue
        _, said, tail = prompt.rpartition(words)
        if said:
            tails.append(tail)
    return tails
