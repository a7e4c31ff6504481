"""Saves and restores sessions: their tokens on the root, keys and values on every rank."""

from __future__ import annotations

from pathlib import Path

from dllama.engine.kv.cache import KvCache
from dllama.engine.kv.index import key_of
from dllama.engine.kv.pages import pages_for
from dllama.engine.kv.session_file import (
    SavedSession,
    checked_name,
    new_stamp,
    read_session,
    write_session,
)
from dllama.engine.kv.sessions import Session
from dllama.errors import DllamaError, EngineBusy, RequestError
from dllama.kv import KvHeld
from dllama.requests import SessionAction, SessionCall, SessionReply
from dllama.runner import Runner
from dllama.step import NO_SLOT, PAGE_TOKENS


class SessionStore:
    """Saves, restores and erases the sessions of one engine, in one directory of the root."""

    def __init__(self, runner: Runner, directory: Path | None) -> None:
        self._runner, self._directory = runner, directory

    def perform(self, call: SessionCall, kv: KvCache) -> SessionReply:
        """The reply to a call. Raises RequestError, SessionFileError, EngineBusy, PeerLost."""
        if call.action is SessionAction.ERASE:
            return SessionReply(call.id, n_tokens=self._erase(call.session_id, kv))
        path = self._path(call.filename)
        if call.action is SessionAction.SAVE:
            n_tokens, n_bytes = self._save(call, kv, path)
        else:
            n_tokens, n_bytes = self._restore(call, kv, path)
        return SessionReply(call.id, n_tokens=n_tokens, n_bytes=n_bytes)

    def _save(self, call: SessionCall, kv: KvCache, path: Path) -> tuple[int, int]:
        session = _known(call.session_id, kv)
        n_tokens, slot = _kept(session, kv)
        if not n_tokens:
            raise RequestError(
                f"nothing of the session {call.session_id!r:.80} is in the KV cache any more",
                param="session_id",
            )
        saved = SavedSession(session.tokens[:n_tokens], new_stamp())
        held = KvHeld.of(*(kind.found(session, n_tokens).to_read for kind in kv.kinds), slot=slot)
        n_bytes = self._runner.save_kv(call.filename, held, saved.stamp)
        return n_tokens, n_bytes + write_session(path, saved, self._runner.fingerprint)

    def _restore(self, call: SessionCall, kv: KvCache, path: Path) -> tuple[int, int]:
        saved = read_session(path, self._runner.fingerprint, self._runner.config.vocab_size)
        n_pages = [pages_for(len(saved.tokens)) - k.first_seen(len(saved.tokens)) for k in kv.kinds]
        if n_pages[0] > kv.pool.n_pages:
            raise RequestError(
                f"the saved session has {len(saved.tokens)} tokens and the KV cache has room for "
                f"{kv.pool.n_pages * PAGE_TOKENS}; start the server with a larger one "
                "(--kv-tokens)",
                param="filename",
            )
        slot = kv.states.pool.allocate() if kv.states.is_needed else NO_SLOT
        is_room = all(n <= kind.pool.n_free for n, kind in zip(n_pages, kv.kinds, strict=True))
        if slot is None or not is_room:
            _give_back(slot, kv)
            raise EngineBusy(
                f"the saved session needs {n_pages[0]} KV pages and {kv.pool.n_free} are free; try "
                "again when fewer requests run"
            )
        pages = [k.pool.allocate(n) or [] for n, k in zip(n_pages, kv.kinds, strict=True)]
        try:
            held = KvHeld.of(*pages, slot=slot)
            n_bytes = self._runner.load_kv(call.filename, held, saved.stamp)
            kv.adopt(call.session_id, saved.tokens, pages, slot)
        except DllamaError:
            _give_back(slot, kv)
            raise
        finally:
            for kind, its_pages in zip(kv.kinds, pages, strict=True):
                kind.pool.release(its_pages)
        return len(saved.tokens), n_bytes + path.stat().st_size

    def _erase(self, name: str, kv: KvCache) -> int:
        session = _known(name, kv)
        kv.sessions.forget(name)
        for kind in kv.kinds:
            kind.pool.drop(session.keys)
        return len(session.tokens)

    def _path(self, filename: str) -> Path:
        if self._directory is None:
            raise RequestError(
                "this server saves no sessions; start it with --slot-save-path DIR",
                param="action",
            )
        return self._directory / f"{checked_name(filename)}.session"


def _kept(session: Session, kv: KvCache) -> tuple[int, int]:
    """The number of a session's first tokens after which all that later rows see is still in the KV
    cache, and the slot of the state after them."""
    n_tokens = len(session.tokens)
    for kind in kv.kinds:
        n_tokens = kind.longest(session, n_tokens)
    if not kv.states.is_needed:
        return n_tokens, NO_SLOT
    for kept in kv.states.pool.longest_first():
        n = kept.n_tokens
        if n <= n_tokens and key_of(session.tokens[:n]) == kept.key:
            return n, kept.slot
    return 0, NO_SLOT


def _give_back(slot: int | None, kv: KvCache) -> None:
    if slot not in (None, NO_SLOT):
        kv.states.pool.release(slot)


def _known(name: str, kv: KvCache) -> Session:
    session = kv.sessions.get(name)
    if session is None:
        raise RequestError(
            f"there is no session {name!r:.80}; a request with this `session_id` begins one, and "
            "it is known from the end of that request's answer on",
            param="session_id",
        )
    return session
