"""Commands load what they need: asking about the program brings in nothing that computes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numba", "llvmlite", "numpy", "aiohttp", "zmq", "tokenizers", "huggingface_hub")


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("--help",), ()),
        (("--version",), ()),
        (("list",), ("huggingface_hub",)),
        (("config",), ("numpy",)),
        (("bench", "--help"), ("numpy",)),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(
    words: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    code = (
        "import sys; from dllama.cli.main import main; code = main(); "
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *words]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    loaded = set(run.stderr.splitlines()[-1].split())
    assert "dllama.cli.main" in loaded and loaded & set(HEAVY) <= set(allowed)
