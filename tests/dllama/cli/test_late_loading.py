"""Commands load what they need: asking about the program brings in nothing that computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.cli.flags.arguments import DEFAULT_MODEL

HEAVY = (
    "numba", "llvmlite", "numpy", "aiohttp", "zmq", "msgpack", "tokenizers", "huggingface_hub",
    "jinja2", "llguidance", "rich", "prompt_toolkit", "asyncio",
)  # fmt: skip


def loaded_by(code: str, *words: str, **environment: str) -> set[str]:
    """Returns the modules that are loaded once a command has ended, as `code` runs it."""
    command = [sys.executable, "-c", code + SAY, *words]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )
    assert run.returncode == 0, run.stderr
    return set(run.stderr.splitlines()[-1].split())


RUN = "import sys; from dllama.cli.main import main; code = main()"
SAY = "; print(*sys.modules, file=sys.stderr); sys.exit(code)"


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("--help",), ()),
        (("--version",), ()),
        (("list",), ("huggingface_hub", "rich")),
        (("config",), ("rich",)),
        (("bench", "--help"), ()),
        (("run", "--help"), ()),
        (("root", "--help"), ()),
        (("worker", "--help"), ()),
        (("completion", "zsh"), ()),
    ],
)
def test_nothing_is_loaded_that_is_not_needed(
    words: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    loaded = loaded_by(RUN, *words)
    assert "dllama.cli.main" in loaded and loaded & set(HEAVY) <= set(allowed)


def test_the_version_asks_no_package() -> None:
    loaded = loaded_by(RUN, "--version")
    assert not loaded & {"importlib.metadata", "logging", "json", "email", "socket"}


def test_a_shell_is_answered_without_what_computes(tmp_path: Path) -> None:
    """Names of models need the library that knows where they are, flags do not."""
    for line, allowed in (
        ("dllama run --kv-type q", set()), ("dllama ro", set()), ("dllama root --kv", set()),
        ("dllama run -m q", {"huggingface_hub"}),
    ):  # fmt: skip
        code = (
            "import os, sys\nfrom dllama.cli.main import main\n"
            "def end(found): os.write(2, ' '.join(sys.modules).encode()); end_now(found)\n"
            "end_now, os._exit = os._exit, end\nmain(); code = 1"
        )
        loaded = loaded_by(
            code, _ARGCOMPLETE="1", COMP_LINE=line, COMP_POINT=str(len(line)),
            _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / "answers"),
        )  # fmt: skip
        assert allowed or (tmp_path / "answers").read_text(), line
        assert "argcomplete" in loaded and loaded & set(HEAVY) <= allowed, line


def test_an_answer_needs_no_compiler_and_no_server() -> None:
    """Once kernels are kept on the disk."""
    words = ("-m", str(DEFAULT_MODEL), "-p", "hi", "-n", "4", "--temperature", "0")
    loaded_by(RUN, *words)  # compiles what is missing
    loaded = loaded_by(RUN, *words)
    assert "dllama.runtime.forward" in loaded
    assert not loaded & {
        "numba", "aiohttp", "zmq", "msgpack", "llguidance", "rich", "prompt_toolkit", "asyncio",
        "huggingface_hub", "numpy.ma", "http.client",
    }  # fmt: skip


def test_an_answer_loads_no_kernel_for_contexts_that_are_full() -> None:
    """Which a first start would compile; where contexts may be outgrown it is ready before."""
    words = ("-m", str(DEFAULT_MODEL), "-p", "hi", "-n", "1", "--temperature", "0")
    count = "; from kernels.attention.shift_keys import _shift_keys; n = len(_shift_keys._entries)"
    for flags, n in (((), 0), (("--context-shift",), 1)):
        loaded_by(f"{RUN}{count}; assert n == {n}, n", *words, *flags)
