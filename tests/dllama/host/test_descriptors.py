"""Limits of file descriptors: raised where that is allowed, and told before they are met."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.errors import ConfigError
from dllama.host.descriptors import check_free, limit, n_free, raise_limit

resource = pytest.importorskip("resource", reason="only POSIX limits descriptors")


@pytest.fixture(autouse=True)
def limits_restored() -> object:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_it_may_be() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(500, hard), hard))
    raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_what_is_free_is_counted() -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("counting descriptors needs /proc")
    before = n_free()
    assert before is not None and limit() is not None
    with Path(os.devnull).open():
        assert n_free() == before - 1
    check_free(before, "this test")
    with pytest.raises(ConfigError, match=rf"this test needs {before + 1} .* only {before} more"):
        check_free(before + 1, "this test")


@pytest.mark.parametrize("program", ["root", "worker"])
def test_a_program_without_descriptors_says_so(program: str) -> None:
    """Below that, ZeroMQ would abort the process."""
    words = [sys.executable, "-m", "dllama", program, "--port", "0"]
    done = subprocess.run(
        ["sh", "-c", f"ulimit -n 16; exec {shlex.join(words)}"], capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"dllama-{program} needs 20 file descriptors" in done.stderr
