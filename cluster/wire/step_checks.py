"""Checks of steps, shifts and saved pages: how their fields fit each other and what a rank has room
for. Kernels index memory by these numbers and do not check them again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cluster.wire.checks import within
from cluster.wire.messages import KvCall, StepCall
from dllama.config import ModelConfig
from dllama.errors import ProtocolError
from dllama.kv import KvShift
from dllama.runtime.kv_files import MARK_BYTES
from dllama.step import MAX_CANDIDATES, PAGE_TOKENS, Step
from dllama.windows import window_pages

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class KvRoom(NamedTuple):
    """What of a sequence's keys, values and states a rank has room for."""

    n_pages: int
    n_window_pages: int = 0
    n_slots: int = 0

    @classmethod
    def of(cls, config: ModelConfig, n_pages: int, max_step_tokens: int) -> KvRoom:
        return cls(n_pages, window_pages(config, n_pages, max_step_tokens), config.n_slots)


@dataclass(frozen=True, slots=True)
class RankLimits:
    """What a rank has room for."""

    max_step_tokens: int
    n_pages: int
    max_seq_len: int
    vocab_size: int
    embed_row_bytes: int
    n_slots: int = 0
    n_window_pages: int = 0
    window: int = 0  # tokens that layers with one see at most


def checked_step(call: StepCall, limits: RankLimits) -> Step:
    """The step of a message. Raises ProtocolError where a number points outside of memory."""
    step = call.step
    n_tokens, n_sequences = step.n_tokens, len(step.starts) - 1
    _check(0 < n_tokens <= limits.max_step_tokens, f"{n_tokens} tokens fit a step")
    _check(0 < n_sequences <= n_tokens, "there are no more sequences than tokens")
    _check(len(step.positions) == n_tokens, "every token has a position")
    _check(len(step.pages) == n_sequences, "every sequence has pages")
    _check(
        call.embed_rows.shape == (n_tokens, limits.embed_row_bytes),
        f"every token brings {limits.embed_row_bytes} bytes of embedding",
    )
    _check(within(step.tokens, 0, limits.vocab_size), "tokens are in the vocabulary")
    _check(within(step.logits_at, 0, n_tokens), "logits are asked of rows that exist")
    _check(within(step.hidden_at, 0, n_tokens), "states are asked of rows that exist")
    _check(len(step.candidates) == len(step.logits_at), "every logits row has a count")
    _check(within(step.candidates, 0, MAX_CANDIDATES + 1), "counts of logits are in range")
    _check(step.copies.shape[1] == 2, "a copy names two pages")
    _check(within(step.copies, 0, limits.n_pages), "copied pages exist")
    _check(step.window_copies.shape[1] == 2, "a copy names two pages")
    _check(within(step.window_copies, 0, limits.n_window_pages), "copied pages exist")
    _check_pages(step, limits)
    _check_window_pages(step, limits)
    _check_slots(step, limits)
    return step


def _check_pages(step: Step, limits: RankLimits) -> None:
    """Every position up to a sequence's last has a page, and every page exists."""
    starts = step.starts
    _check(starts[0] == 0 and starts[-1] == step.n_tokens, "sequences cover the tokens")
    _check(bool((np.diff(starts) > 0).all()), "every sequence has a token")
    _check(within(step.positions, 0, limits.max_seq_len), "positions are within the context")
    _check(within(step.pages, -1, limits.n_pages), "pages exist")
    last_pages = np.maximum.reduceat(step.positions, starts[:-1]) // PAGE_TOKENS  # (S,)
    _check(within(last_pages, 0, step.pages.shape[1]), "every position has a page")
    used = np.arange(step.pages.shape[1])[None, :] <= last_pages[:, None]  # (S, max_pages)
    _check(not (used & (step.pages < 0)).any(), "every position has a page")


def _check_window_pages(step: Step, limits: RankLimits) -> None:
    """Every position that a row sees in a window has a page of layers with one."""
    if len(step.window_pages) == 0:
        is_told = limits.n_window_pages == 0 or within(step.pages, -1, limits.n_window_pages)
        _check(is_told, "pages of layers with a window exist")
        return
    pages, starts = step.window_pages, step.starts
    _check(len(pages) == len(starts) - 1, "every sequence has pages")
    _check(within(pages, -1, limits.n_window_pages), "pages of layers with a window exist")
    firsts, lasts = (
        reduce.reduceat(step.positions, starts[:-1]) for reduce in (np.minimum, np.maximum)
    )
    begin = np.maximum(0, firsts - limits.window + 1) // PAGE_TOKENS
    end = lasts // PAGE_TOKENS
    _check(within(end, 0, pages.shape[1]), "every position in a window has a page")
    places = np.arange(pages.shape[1])[None, :]  # (S, max_pages)
    seen = (places >= begin[:, None]) & (places <= end[:, None])
    _check(not (seen & (pages < 0)).any(), "every position in a window has a page")


def _check_slots(step: Step, limits: RankLimits) -> None:
    """Every sequence has slots that exist, and none is written that another sequence uses."""
    _check(step.slots.shape[1] == step.kept.shape[1] == 2, "slots are named in pairs")
    n_sequences = len(step.starts) - 1
    _check(len(step.slots) in (0, n_sequences), "every sequence has a slot, or none is named")
    _check(
        limits.n_slots == 0 or n_sequences <= limits.n_slots, "there is a slot for each sequence"
    )
    _check(within(step.slots, 0, limits.n_slots), "slots exist")
    _check(len(step.kept) == 0 or len(step.slots) > 0, "states are kept of sequences with slots")
    _check(within(step.kept[:, 0], 0, step.n_tokens), "states are kept of rows that exist")
    _check(within(step.kept[:, 1], 0, limits.n_slots), "slots of kept states exist")
    written = np.concatenate([step.slots[:, 1], step.kept[:, 1]])
    _check(len(np.unique(written)) == len(written), "no slot is written twice")
    others = step.slots[step.slots[:, 0] != step.slots[:, 1], 0]
    _check(not np.isin(others, written).any(), "no slot is written that another sequence reads")


def check_shift(shift: KvShift, limits: RankLimits) -> None:
    """Raises ProtocolError where a number of a shift points outside of memory, or where a page
    would be written before it is read."""
    _check(0 < shift.n_tokens <= limits.max_seq_len, "tokens fit the context")
    _check(0 <= shift.n_keep < shift.n_tokens, "tokens that stay are among the sequence's")
    _check(0 < shift.n_drop <= shift.n_tokens - shift.n_keep, "tokens that go come after those")
    n_from = -(-shift.n_tokens // PAGE_TOKENS)
    n_to = -(-(shift.n_tokens - shift.n_drop) // PAGE_TOKENS)
    for pages, n in ((shift.from_pages, n_from), (shift.to_pages, n_to)):
        _check(len(pages) == n, f"{n} pages hold the tokens")
        _check(within(pages, 0, limits.n_pages), "pages exist")
        _check(len(np.unique(pages)) == n, "no page is named twice")
    is_new = shift.to_pages != shift.from_pages[:n_to]
    _check(not is_new[: shift.n_keep // PAGE_TOKENS].any(), "whole pages that stay stay in place")
    _check(not np.isin(shift.to_pages[is_new], shift.from_pages).any(), "new pages are new")
    _check_window_shift(shift, limits, n_from, n_to)


def _check_window_shift(shift: KvShift, limits: RankLimits, n_from: int, n_to: int) -> None:
    """Pages of layers with a window exist, and none is written before it is read."""
    before, after = shift.from_window_pages, shift.to_window_pages
    sizes = (n_from, n_to) if limits.n_window_pages else (0, 0)
    _check((len(before), len(after)) == sizes, "pages of layers with a window hold the tokens")
    for pages in (before, after):
        _check(within(pages, -1, limits.n_window_pages), "pages of layers with a window exist")
        held = pages[pages >= 0]
        _check(len(np.unique(held)) == len(held), "no page is named twice")
    n_whole = shift.n_keep // PAGE_TOKENS
    stays = (after[:n_whole] < 0) | (after[:n_whole] == before[:n_whole])
    _check(bool(stays.all()), "whole pages that stay stay in place")
    places = {page: place for place, page in enumerate(before.tolist()) if page >= 0}
    for place, page in enumerate(after.tolist()):
        is_behind = place <= places.get(page, place) <= place + shift.n_drop // PAGE_TOKENS
        _check(is_behind, "a page of a window is read before it is written")


def check_kv_call(call: KvCall, room: KvRoom) -> None:
    """Raises ProtocolError where no root of ours would save or restore these pages, or this
    slot."""
    held = call.held
    if not 0 < len(held.pages) <= room.n_pages:
        raise ProtocolError("the root asks for KV pages that this rank does not have")
    for pages, n_pages in ((held.pages, room.n_pages), (held.window_pages, room.n_window_pages)):
        if not within(pages, 0, n_pages):
            raise ProtocolError("the root asks for KV pages that this rank does not have")
        if len(np.unique(pages)) != len(pages):
            raise ProtocolError("the root names a KV page twice in one call")
    if held.slot >= room.n_slots:
        raise ProtocolError("the root asks for a slot of states that this rank does not have")
    if len(call.mark) != MARK_BYTES:
        raise ProtocolError(f"the root's mark of saved pages has not {MARK_BYTES} bytes")
    if not _FILE_NAME.fullmatch(call.name):
        raise ProtocolError(f"the root sent {call.name!r:.40} as the name of a file")


def _check(holds: bool | np.bool_, rule: str) -> None:
    if not holds:
        raise ProtocolError(f"the root sent a step or a shift that breaks this rule: {rule}")
