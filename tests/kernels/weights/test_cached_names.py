"""Kernels on disk: those of different processes work in one, and no second process compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACK = """
import sys
import numpy as np
from kernels.formats import format_of
from kernels.team import Team
from kernels.weights.dequantize import dequantize
from kernels.weights.packing import pack

for name in sys.argv[1:]:
    n_bytes = format_of(name).layout.row_bytes(256)
    raw = np.random.default_rng(0).integers(0, 60, (16, n_bytes))
    raw = raw.astype(np.uint8)
    with Team(1) as team:
        packed = pack(team.state, name, [raw], 256)
    values = np.zeros((16, 256), np.float32)
    dequantize(name, raw, values)
    print(name, packed.quants.sum(), packed.scales.sum(), float(np.abs(values).sum()))
"""


WARM_UP = """
from kernels.kernel import on_compile
from kernels.team import Team
from kernels.warm_up import pieces

# one of each way to be packed and multiplied
SOME = "F16", "Q4_0", "IQ3_S"
names = []
with Team(1) as team, on_compile(names.append):
    for name, compile_piece in pieces():
        if name.startswith("weights") and name.split()[-1] not in SOME:
            continue
        compile_piece(team)
print(len(names), *names)
"""


def run(code: str, *args: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kernels_of_two_processes_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    def packed(*names: str) -> str:
        return run(PACK, *names, DLLAMA_CACHE=str(tmp_path))

    alone = [packed("q4_0"), packed("q8_0")]
    assert packed("q4_0", "q8_0") == "".join(alone)
    assert packed("q8_0", "q4_0") == "".join(reversed(alone))


def test_a_second_process_compiles_nothing() -> None:
    """All kernels that are made of a type load from the cache."""
    run(WARM_UP)  # compiles what no other test has compiled yet
    assert run(WARM_UP).split() == ["0"]
