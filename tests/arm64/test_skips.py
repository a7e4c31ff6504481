"""Where a machine cannot emulate AArch64, `make test-arm64` says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arm64.__main__ import main


def test_without_debians_tools_it_says_so_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--cache", str(tmp_path / "cache")]) == 0
    assert "skipped: nothing ran on AArch64, as there is no apt-get here" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
