"""Machine code on disk: loaded without a compiler, and never a reason not to start."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels import cache
from kernels.emit.jit import kernel
from kernels.kernel import Kernel, on_compile
from kernels.wire import rings

ROOT = Path(__file__).parents[2]


def fresh() -> Kernel:
    """A kernel of this package that nothing was compiled for in this process: small, and quick to
    compile."""
    return Kernel(rings.fall_asleep.py_func, rings.fall_asleep.options)


def works() -> list[str]:
    """Runs the kernel, which must do its work; returns what was compiled for that."""
    ring, names = np.zeros(64, np.int64), []
    with on_compile(names.append):
        fresh()(ring.ctypes.data, 7)
    assert ring[rings.ASLEEP] == 7
    return names


@pytest.fixture
def one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the one kernel in an own cache."""
    monkeypatch.setenv("DLLAMA_CACHE", str(tmp_path))
    cache._tell.cache_clear()
    assert works() == ["wire.rings.fall_asleep"]
    folder = cache.folder()
    assert folder is not None
    (file,) = folder.iterdir()
    assert works() == []
    return file


def test_a_file_cut_short_anywhere_is_a_miss_and_is_mended(
    one_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = one_file.read_bytes()
    lengths = [0, 15, 16, 48, 49, len(whole) - 1]
    for n in lengths:
        one_file.write_bytes(whole[:n])
        assert works() == ["wire.rings.fall_asleep"], f"cut to {n} of {len(whole)} bytes"
        assert one_file.stat().st_size > 48
        assert works() == []
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "is damaged and is compiled anew" in warnings[0].message


def test_changed_bytes_are_a_miss(one_file: Path) -> None:
    whole = one_file.read_bytes()
    for at in (0, 20, 48, len(whole) - 1):
        one_file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert works() == ["wire.rings.fall_asleep"], f"byte {at} of {len(whole)} changed"


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_file_that_cannot_be_opened_is_a_miss(one_file: Path, is_folder: bool) -> None:
    one_file.unlink()
    if is_folder:
        one_file.mkdir()
    assert works() == ["wire.rings.fall_asleep"]


def test_a_cache_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DLLAMA_CACHE", str(tmp_path / "file"))
    cache._tell.cache_clear()
    for _ in range(2):
        assert works() == ["wire.rings.fall_asleep"]
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "set DLLAMA_CACHE" in warnings[0].message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_costs_no_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("DLLAMA_CACHE", str(tmp_path))
    assert works() == ["wire.rings.fall_asleep"]


def test_the_folder_is_the_users_cache_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLLAMA_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for ignored in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        root = cache.cache_root()
        assert root is not None and tmp_path in root.parents
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache.cache_root() == tmp_path / "own" / "dllama" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "")

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache.cache_root() is None
    assert works() == ["wire.rings.fall_asleep"]


LOADS = """
import sys
import numpy as np
from kernels.formats import format_of
from kernels.team import Team
from kernels.weights.packing import pack

with Team(2) as team:
    n_bytes = format_of("q8_0").layout.row_bytes(256)
    pack(team.state, "q8_0", [np.ones((16, n_bytes), np.uint8)], 256)
print("numba" in sys.modules)
"""


def test_what_is_on_disk_needs_no_compiler() -> None:
    for expected in (None, "False"):  # the first run may compile
        done = subprocess.run(
            [sys.executable, "-c", LOADS], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert expected is None or done.stdout.strip() == expected


def test_a_kernel_that_allocates_is_refused() -> None:
    @kernel
    def allocate(n):
        return np.empty(n, np.float32).size

    with pytest.raises(TypeError, match=r"allocate does what .* allocates an array"):
        allocate(3)


def test_a_kernel_returns_an_integer_or_nothing() -> None:
    @kernel
    def half(n):
        return n / 2

    @kernel
    def double(n):
        return n * 2

    assert double(21) == 42 and double(-3) == -6
    with pytest.raises(TypeError, match="returns float64, not an int64"):
        half(3)


def test_arguments_of_all_kinds_arrive() -> None:
    @kernel
    def weigh(out, wide, numbers, nested):
        i, f, b, h = numbers
        (x, (y, z)), w = nested
        for row in range(wide.shape[0]):
            for col in range(wide.shape[1]):
                out[0] += wide[row, col]
        out[1], out[2], out[3], out[4] = i, f, b, h
        out[5], out[6], out[7], out[8] = x, y, z[1], w

    out = np.zeros(9)
    wide = np.arange(24, dtype=np.int16).reshape(4, 6)[::2, 1::2]  # strided
    frozen = np.array([3, 4], np.uint8)
    frozen.flags.writeable = False
    weigh(
        out, wide, (-(2**40), 0.25, True, np.float32(1.5)),
        ((np.int32(-5), (np.uint16(65535), frozen)), np.uint8(255)),
    )  # fmt: skip
    assert out.tolist() == [wide.sum(), -(2**40), 0.25, 1, 1.5, -5, 65535, 4, 255]


def test_items_at_any_address_are_read() -> None:
    @kernel
    def total(x):
        found = 0
        for i in range(x.size):
            found += x[i]
        return found

    data = np.frombuffer(b"\0" + np.arange(5, dtype=np.int64).tobytes(), np.uint8)
    assert total(data[1:].view(np.int64)) == 10


@pytest.mark.parametrize("value", ["text", None, [1]])
def test_what_is_no_argument_is_told(value: object) -> None:
    @kernel
    def take(x):
        return 0

    with pytest.raises(TypeError, match="cannot be an argument of a kernel"):
        take(value)
