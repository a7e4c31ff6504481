"""Sessions: what they pin leaves last and is bounded; saved ones come back, or say why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllama.engine.engine import Engine
from dllama.engine.kv.index import page_key
from dllama.engine.kv.layer_pages import LayerPages
from dllama.engine.kv.session_file import SavedSession, new_stamp, read_session, write_session
from dllama.engine.kv.sessions import Sessions
from dllama.errors import SessionFileError
from dllama.formats import open_model
from dllama.requests import SamplingParams, SessionAction, SessionCall, Submit
from dllama.runtime.local_runner import LocalRunner
from tests.dllama.engine.history_runner import HistoryRunner
from tests.toy_models import write_toy

GREEDY = SamplingParams(temperature=0.0)


def talk(engine: Engine, name: str, tokens: list[int], session: str | None = None) -> list[int]:
    """The answer to a prompt."""
    return talk_and_count(engine, name, tokens, session)[0]


def talk_and_count(
    engine: Engine, name: str, tokens: list[int], session: str | None = None
) -> tuple[list[int], int]:
    """The answer to a prompt, and how many tokens of the prompt were found in the cache."""
    engine.submit(Submit(name, tokens, GREEDY, max_tokens=6, session_id=session))
    told: list[int] = []
    n_cached = 0
    while engine.has_work():
        for output in engine.step():
            assert output.error is None, output.error
            told += output.tokens
            n_cached = output.n_cached
    engine.scheduler.check_integrity()
    return told, n_cached


def test_a_sessions_pages_outlive_others_that_came_later() -> None:
    engine = Engine(HistoryRunner(n_pages=16))
    chat = [k % 90 for k in range(100)]
    answer = talk(engine, "first", chat, "mine")
    for i in range(12):  # each of three pages, all of other people
        talk(engine, f"other{i}", [(i + 2 + 3 * k) % 90 for k in range(90)])
    _, n_cached = talk_and_count(engine, "again", [*chat, *answer, 1], "mine")
    assert n_cached == 105


def test_pins_are_bounded_and_the_longest_unused_session_loses_them() -> None:
    pages = LayerPages(20)
    sessions = Sessions([pages])
    keys = {name: [page_key(name.encode(), [i]) for i in range(4)] for name in "abc"}
    for name in "ab":
        sessions.note(name, [1, 2], keys[name])
    sessions.note("a", [1, 2, 3], keys["a"])  # used again
    sessions.note("c", [1], keys["c"])
    assert sessions.get("b") is None and len(sessions) == 2
    a = sessions.get("a")
    assert a is not None and a.tokens == [1, 2, 3]
    sessions.note("long", [1] * 640, [page_key(b"long", [i]) for i in range(20)])
    assert len(sessions) == 1  # half the pool, and not more
    long = sessions.get("long")
    assert long is not None and len(long.pinned[0]) == 10
    sessions.forget("long")
    assert pages.pool.n_pins == 0


def make_engine(path: Path, folder: Path, n_pages: int = 32) -> Engine:
    runner = LocalRunner.load(
        open_model(path), n_pages=n_pages, max_step_tokens=128, n_threads=1, kv_dir=folder
    )
    return Engine(runner, max_step_tokens=100, session_dir=folder)


SAVE = SessionCall("1", SessionAction.SAVE, "chat", "talk.bin")
RESTORE = SessionCall("2", SessionAction.RESTORE, "chat", "talk.bin")


def test_a_saved_session_comes_back_in_another_process_life(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.gguf")
    chat = [(7 * k) % 350 for k in range(77)]
    engine = make_engine(path, tmp_path / "saved")
    answer = talk(engine, "one", chat, "chat")
    saved = engine.session(SAVE)
    assert saved.error is None and saved.n_tokens == 82 and saved.n_bytes > 10_000
    following = talk(engine, "two", [*chat, *answer, 9, 8], "chat")
    engine.close()
    other = make_engine(path, tmp_path / "saved", n_pages=9)  # the pages have other numbers
    talk(other, "somebody", [5] * 40)
    restored = other.session(replace(RESTORE, session_id="renamed"))
    assert restored.error is None
    assert (restored.n_tokens, restored.n_bytes) == (saved.n_tokens, saved.n_bytes)
    other.scheduler.check_integrity()
    found, n_cached = talk_and_count(other, "two", [*chat, *answer, 9, 8], "renamed")
    assert found == following
    assert n_cached == 82
    erased = other.session(SessionCall("3", SessionAction.ERASE, "renamed"))
    assert erased.error is None and erased.n_tokens > 82
    _, n_cached = talk_and_count(other, "three", [*chat, *answer, 9, 8])
    assert n_cached == 0
    other.close()


def test_a_session_is_saved_whole_although_another_goes_on_in_its_last_page(
    tmp_path: Path,
) -> None:
    engine = make_engine(write_toy(tmp_path / "toy.gguf"), tmp_path / "saved")
    chat = [(7 * k) % 350 for k in range(77)]
    answer = talk(engine, "one", chat, "chat")
    engine.submit(Submit("two", [*chat, *answer, 9, 8], GREEDY, max_tokens=40))
    for _ in range(8):
        engine.step()
    saved = engine.session(SAVE)
    assert saved.error is None and saved.n_tokens == 82
    while engine.has_work():
        engine.step()
    assert engine.session(replace(SAVE, filename="later")).n_tokens == 82
    engine.close()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.gguf")
    engine = make_engine(path, tmp_path / "saved")
    talk(engine, "one", list(range(50)), "chat")

    def error(call: SessionCall) -> str:
        reply = engine.session(call)
        assert reply.error is not None
        engine.scheduler.check_integrity()
        return reply.error

    assert "no session 'nobody'" in error(replace(SAVE, session_id="nobody"))
    assert "no session" in error(SessionCall("4", SessionAction.ERASE, "nobody"))
    for name in ("../talk", "", "a/b", ".hidden", "x" * 200, "a\0b"):
        assert "not allowed" in error(replace(SAVE, filename=name))
    assert "no saved session" in error(replace(RESTORE, filename="missing"))
    assert "--slot-save-path" in (Engine(HistoryRunner()).session(SAVE).error or "")
    engine.session(SAVE)
    engine.close()
    engine = make_engine(write_toy(tmp_path / "toy2.gguf", seed=1), tmp_path / "saved")
    assert "another model" in error(RESTORE)
    engine.close()


def test_a_session_without_room_for_it_is_a_matter_of_time(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.gguf")
    engine = make_engine(path, tmp_path / "saved", n_pages=6)
    talk(engine, "one", [(7 * k) % 350 for k in range(77)], "chat")
    engine.session(SAVE)
    engine.session(SessionCall("3", SessionAction.ERASE, "chat"))
    engine.submit(Submit("long", list(range(120)), GREEDY, max_tokens=20))
    while not any(output.tokens for output in engine.step()):
        pass
    busy = engine.session(RESTORE)
    assert "when fewer requests run" in (busy.error or "") and busy.retry_after_s
    while engine.has_work():
        engine.step()
    assert engine.session(RESTORE).error is None
    missing = engine.session(replace(RESTORE, filename="missing"))
    assert missing.error and missing.retry_after_s is None
    engine.close()


def test_damaged_files_change_nothing(tmp_path: Path) -> None:
    """Whatever byte is wrong or missing, in either file, the answer is as without a restore."""
    path = write_toy(tmp_path / "toy.gguf")
    engine = make_engine(path, tmp_path / "saved")
    chat = list(range(3, 60))
    answer = talk(engine, "one", chat, "chat")
    assert engine.session(SAVE).error is None
    engine.session(SessionCall("3", SessionAction.ERASE, "chat"))
    files = sorted((tmp_path / "saved").iterdir())
    assert len(files) == 2
    for file in files:
        whole = file.read_bytes()
        spots = [0, 8, 12, 20, 40, len(whole) // 2, len(whole) - 1]
        broken = [whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :] for i in spots]
        for data in [*broken, whole[:-1], whole + b"x", b"", whole[:30]]:
            file.write_bytes(data)
            assert engine.session(RESTORE).error is not None
            engine.scheduler.check_integrity()
        file.write_bytes(whole)
    found, n_cached = talk_and_count(engine, "again", chat)
    assert found == answer
    assert n_cached == 0
    assert engine.session(RESTORE).error is None
    engine.close()


def test_a_session_file_is_its_own_models(tmp_path: Path) -> None:
    path, saved = tmp_path / "s.session", SavedSession([1, 2, 3], new_stamp())
    write_session(path, saved, b"f" * 32)
    assert read_session(path, b"f" * 32, 10) == saved
    with pytest.raises(SessionFileError, match="another model"):
        read_session(path, b"g" * 32, 10)
    with pytest.raises(SessionFileError, match="does not have"):
        read_session(path, b"f" * 32, 3)
