"""A pytest plugin for the test-suite of llama-server: nothing is downloaded, and the end of every
test is a line of JSON, so that a file that is stopped loses only what has not run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.peers.llama_server_stand_in import NOTES_VARIABLE

RECORD_VARIABLE = "LLAMA_SUITE_RECORD"  # the file of lines: test, outcome, reason
REASON_CHARS = 300


def pytest_configure(config: pytest.Config) -> None:
    """Replaces what would download before the first test, and in some tests."""
    sys.path.insert(0, str(Path.cwd()))
    import utils  # type: ignore[import-not-found]  # of the suite, whose folder is the current one
    import wget  # type: ignore[import-untyped]

    utils.ServerPreset.load_all = staticmethod(lambda: None)
    wget.download = refused_download


def refused_download(url: str, out: str | None = None) -> None:
    note(f"downloads {url.rpartition('/')[2]}")
    pytest.skip("nothing is downloaded")


def note(reason: str) -> None:
    with Path(os.environ[NOTES_VARIABLE]).open("a") as notes:
        notes.write(f"{reason}\n")


def taken_notes() -> list[str]:
    """Returns the reasons that were noted since the last call."""
    path = Path(os.environ[NOTES_VARIABLE])
    notes = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return notes


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Records the end of a test: its call, or a set-up that did not reach it."""
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        notes = taken_notes()
        outcome = "cannot run" if notes else report.outcome
        reason = notes[0] if notes else last_line(report)
        line = {"test": report.nodeid, "outcome": outcome, "reason": reason}
        with Path(os.environ[RECORD_VARIABLE]).open("a") as record:
            record.write(json.dumps(line) + "\n")


def last_line(report: pytest.TestReport) -> str:
    """Returns the sentence about a failure or a skip, "" for a test that passed."""
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    if report.outcome != "failed":
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(report.longrepr) if crash is None else f"{crash.lineno}: {crash.message}"
    return text[:REASON_CHARS]
