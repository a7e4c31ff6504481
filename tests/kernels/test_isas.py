"""Every instruction set this machine can run gives the right products, not only the best one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.cpu import available_isas, isa

OTHERS = [name for name in available_isas() if name != isa()]
FORMATS = "q4_0 or q8_0 or q6_k or iq4_xs or tiles"  # nibbles, bytes, pairs above, a table


@pytest.mark.skipif("DLLAMA_ISA" in os.environ, reason="this is the inner run")
@pytest.mark.parametrize("name", OTHERS)
def test_products_are_right_on(name: str) -> None:
    here = Path(__file__).parent
    files = [str(here / "test_matmul.py"), str(here / "test_activations.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-k", f"1thread and ({FORMATS})", *files]
    run = subprocess.run(
        command, env={**os.environ, "DLLAMA_ISA": name}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout


def test_asking_for_what_the_processor_lacks_is_a_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import kernels"],
        env={**os.environ, "DLLAMA_ISA": "quantum"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode != 0
    assert "this processor can run only" in run.stderr
