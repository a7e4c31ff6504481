"""Limits of containers, read from files as both versions of cgroups write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllama.host.container import cpu_limit, is_throttled, memory_group, memory_left


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


def test_version_2_the_tightest_group_counts(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/box/inner\n")
    write(tmp_path / "cg", cpu__max="max 100000")
    write(tmp_path / "cg/box", memory__max="1000", memory__current="700", cpu__max="150000 100000")
    write(
        tmp_path / "cg/box/inner",
        memory__max="900", memory__current="800", memory__stat="anon 500\nfile 50",
        cpu__max="max 100000",
    )  # fmt: skip
    assert memory_left(tmp_path / "cg", own) == 150
    assert cpu_limit(tmp_path / "cg", own) == 1.5


def test_version_1(tmp_path: Path, own: Path) -> None:
    own.write_text("4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n")
    write(
        tmp_path / "cg/memory/docker/a",
        memory__limit_in_bytes="5000", memory__usage_in_bytes="2000",
        memory__stat="cache 1\ntotal_cache 10",
    )  # fmt: skip
    write(tmp_path / "cg/cpu/docker/a", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    assert memory_left(tmp_path / "cg", own) == 3010
    assert cpu_limit(tmp_path / "cg", own) == 0.5


@pytest.mark.parametrize("limit", ["max", str((1 << 63) - 4096)])
def test_no_limit_is_none(tmp_path: Path, own: Path, limit: str) -> None:
    own.write_text("0::/\n")
    write(tmp_path / "cg", memory__max=limit, memory__current="5", cpu__max="max 100000")
    assert memory_left(tmp_path / "cg", own) is None
    assert cpu_limit(tmp_path / "cg", own) is None


def test_processes_share_a_memory_where_they_share_its_limit(tmp_path: Path, own: Path) -> None:
    write(tmp_path / "cg", memory__max="max", memory__current="9")
    for box in ("a", "b"):
        write(tmp_path / "cg" / box, memory__max="1000", memory__current="9")
        for inner, limit in (("x", "max"), ("y", "600")):
            write(tmp_path / "cg" / box / inner, memory__max=limit, memory__current="4")
    groups = []
    for path in ("/", "/a/x", "/a/y", "/a", "/b/x"):
        own.write_text(f"0::{path}\n")
        groups.append(memory_group(tmp_path / "cg", own))
    assert groups[0] is None and groups[1] is not None
    assert groups[1] == groups[2] == groups[3] != groups[4]


def test_no_linux_is_none(tmp_path: Path) -> None:
    assert memory_left(tmp_path / "none", tmp_path / "nothing") is None
    assert cpu_limit(tmp_path / "none", tmp_path / "nothing") is None


def test_a_group_with_less_time_than_its_threads_is_throttled(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/box\n")
    for quota, expected in ((50_000, True), (200_000, True), (300_000, False), ("max", False)):
        write(tmp_path / "cg/box", cpu__max=f"{quota} 100000")
        assert is_throttled(2, tmp_path / "cg", own) is expected
