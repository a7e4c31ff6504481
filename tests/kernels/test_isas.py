"""Every instruction set this machine can run gives the right products, not only the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.cpu import available_isas, isa

OTHERS = [name for name in available_isas() if name != isa()]
FORMATS = "q4_0 or q8_0 or q6_k or iq4_xs or mxfp4 or tiles"  # nibbles, bytes, pairs above, tables


def run_tests_on(name: str, chosen: str, *files: str) -> None:
    """Runs tests of this folder, in a process of its own, on another instruction set."""
    paths = [str(Path(__file__).parent / file) for file in files]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", chosen, *paths],
        env={**os.environ, "DLLAMA_ISA": name}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout


@pytest.mark.timeout(1200)  # each compiles kernels of its own
@pytest.mark.skipif("DLLAMA_ISA" in os.environ, reason="this is the inner run")
@pytest.mark.parametrize("name", OTHERS)
def test_products_are_right_on(name: str) -> None:
    run_tests_on(name, f"1thread and ({FORMATS})", "matmul/test_multiply.py", "test_activations.py")


@pytest.mark.timeout(1200)  # each compiles kernels of its own
@pytest.mark.skipif("DLLAMA_ISA" in os.environ, reason="this is the inner run")
@pytest.mark.parametrize("name", OTHERS)
def test_attention_is_right_on(name: str) -> None:
    chosen = "1thread and 100 or any_number and 513"  # whole prompts, and chunks shared out
    run_tests_on(name, chosen, "attention/test_causal.py", "attention/test_long_contexts.py")


def test_asking_for_what_the_processor_lacks_is_a_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import kernels.formats.q4_0"],
        env={**os.environ, "DLLAMA_ISA": "quantum"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode != 0
    assert "this processor can run only" in run.stderr
