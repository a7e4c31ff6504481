"""Saves and restores sessions: their tokens on the root, keys and values on every rank."""

from __future__ import annotations

from pathlib import Path

from dllama.engine.kv.cache import KvCache
from dllama.engine.kv.index import key_of
from dllama.engine.kv.session_file import (
    SavedSession,
    checked_name,
    new_stamp,
    read_session,
    write_session,
)
from dllama.engine.kv.sessions import Session
from dllama.errors import DllamaError, EngineBusy, RequestError
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
        pages, n_tokens = _kept(session, kv)
        slot = NO_SLOT
        if kv.states.is_needed and pages:
            pages, n_tokens, slot = _up_to_state(session, pages, n_tokens, kv)
        if not pages:
            raise RequestError(
                f"nothing of the session {call.session_id!r:.80} is in the KV cache any more",
                param="session_id",
            )
        saved = SavedSession(session.tokens[:n_tokens], new_stamp())
        n_bytes = self._runner.save_kv(call.filename, pages, saved.stamp, slot)
        return n_tokens, n_bytes + write_session(path, saved, self._runner.fingerprint)

    def _restore(self, call: SessionCall, kv: KvCache, path: Path) -> tuple[int, int]:
        saved = read_session(path, self._runner.fingerprint, self._runner.config.vocab_size)
        n_pages = -(-len(saved.tokens) // PAGE_TOKENS)
        if n_pages > kv.pool.n_pages:
            raise RequestError(
                f"the saved session has {len(saved.tokens)} tokens and the KV cache has room for "
                f"{kv.pool.n_pages * PAGE_TOKENS}; start the server with a larger one "
                "(--kv-tokens)",
                param="filename",
            )
        slot = kv.states.pool.allocate() if kv.states.is_needed else NO_SLOT
        pages = kv.pool.allocate(n_pages) if slot is not None else None
        if slot is None or pages is None:
            _give_back(slot, kv)
            raise EngineBusy(
                f"the saved session needs {n_pages} KV pages and {kv.pool.n_free} are free; try "
                "again when fewer requests run"
            )
        try:
            n_bytes = self._runner.load_kv(call.filename, pages, saved.stamp, slot)
            kv.adopt(call.session_id, saved.tokens, pages, slot)
        except DllamaError:
            _give_back(slot, kv)
            raise
        finally:
            kv.pool.release(pages)
        return len(saved.tokens), n_bytes + path.stat().st_size

    def _erase(self, name: str, kv: KvCache) -> int:
        session = _known(name, kv)
        kv.sessions.forget(name)
        kv.pool.drop(session.keys)
        return len(session.tokens)

    def _path(self, filename: str) -> Path:
        if self._directory is None:
            raise RequestError(
                "this server saves no sessions; start it with --slot-save-path DIR",
                param="action",
            )
        return self._directory / f"{checked_name(filename)}.session"


def _kept(session: Session, kv: KvCache) -> tuple[list[int], int]:
    """The pages of a session's first tokens that are still in the KV cache, and the number of these
    tokens. Its last page may have grown since."""
    pages = kv.pool.find(session.keys)
    n_tokens = min(len(session.tokens), len(pages) * PAGE_TOKENS)
    before = session.keys[len(pages) - 1] if pages else b""
    wanted = session.tokens[n_tokens : n_tokens + PAGE_TOKENS]
    found = kv.pool.find_within(before, wanted)
    return (pages, n_tokens) if found is None else ([*pages, found.page], n_tokens + found.n)


def _up_to_state(
    session: Session, pages: list[int], n_tokens: int, kv: KvCache
) -> tuple[list[int], int, int]:
    """Returns the pages of the most tokens, `n_tokens` at most, after which the state is kept, the
    number of these tokens, and the state's slot; no pages without one."""
    for kept in kv.states.pool.longest_first():
        n = kept.n_tokens
        if n <= n_tokens and key_of(session.tokens[:n]) == kept.key:
            return pages[: -(-n // PAGE_TOKENS)], n, kept.slot
    return [], 0, NO_SLOT


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
