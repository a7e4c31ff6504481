"""A short run of the fuzzing of a real server around a toy model."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fuzz_api import Holdings, fuzz, leaks
from tests.toy_models import write_toy


def test_random_requests_leave_nothing_behind(tmp_path: Path) -> None:
    done, before, after = fuzz(str(write_toy(tmp_path / "toy.gguf")), 60)
    assert sum(done.statuses.values()) + done.left >= 60
    assert done.statuses[200] and done.statuses[400]
    assert leaks(before, after) == []


def test_leaks_are_seen() -> None:
    before = Holdings(files=10, threads=3, tasks=1, pages=0, sequences=0)
    after = Holdings(files=30, threads=3, tasks=4, pages=5, sequences=1)
    assert leaks(before, after) == [
        "20 more files", "3 more tasks", "5 pages and 1 sequences are not freed",
    ]  # fmt: skip
