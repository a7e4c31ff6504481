"""Saving and restoring KV pages on a rank: the root's call, checked, done and answered."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from cluster.rank import Rank
from cluster.wire.messages import KvCall, KvDone
from dllama.errors import ProtocolError, SessionFileError
from dllama.runtime.kv_files import MARK_BYTES, Tick
from kernels.cache import cache_root

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def kv_directory() -> Path:
    """Where a worker keeps the keys and values of saved sessions: $DLLAMA_SESSIONS, else a folder
    beside the compiled kernels."""
    chosen = os.environ.get("DLLAMA_SESSIONS")
    return Path(chosen) if chosen else cache_root().parent / "sessions"


def kv_call(number: int, *, is_save: bool, name: str, pages: list[int], mark: bytes) -> KvCall:
    """The message that asks a rank to write or read pages."""
    return KvCall(number, is_save, name, np.array(pages, np.int32), np.frombuffer(mark, np.uint8))


def perform(rank: Rank, call: KvCall, n_pages: int, directory: Path, tick: Tick) -> KvDone:
    """Does what the call says; an answer with the reason where it cannot be done. Raises
    ProtocolError where no root of ours would have asked for it."""
    pages = call.pages
    is_sound = pages.dtype == np.int32 and pages.ndim == 1 and 0 < len(pages) <= n_pages
    if not is_sound or pages.min() < 0 or pages.max() >= n_pages:
        raise ProtocolError("the root asks for KV pages that this rank does not have")
    if len(np.unique(pages)) != len(pages):
        raise ProtocolError("the root names a KV page twice in one call")
    if call.mark.dtype != np.uint8 or call.mark.shape != (MARK_BYTES,):
        raise ProtocolError(f"the root's mark of saved pages has not {MARK_BYTES} bytes")
    if not _NAME.fullmatch(call.name):
        raise ProtocolError(f"the root sent {call.name!r:.40} as the name of a file")
    path, mark = directory / call.name, call.mark.tobytes()
    try:
        do = rank.save_kv if call.is_save else rank.load_kv
        return KvDone(call.number, do(path, pages.tolist(), mark, tick), "")
    except SessionFileError as error:
        return KvDone(call.number, 0, str(error))
