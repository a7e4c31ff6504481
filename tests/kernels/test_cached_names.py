"""Kernels that different processes compiled and cached work in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACK = """
import sys
import numpy as np
from kernels.dequantize import dequantize
from kernels.layout import BLOCK_FORMATS
from kernels.packing import pack
from kernels.team import Team

for name in sys.argv[1:]:
    block = BLOCK_FORMATS[name]
    raw = np.random.default_rng(0).integers(0, 60, (16, 256 // block.values * block.raw_bytes))
    raw = raw.astype(np.uint8)
    with Team(1) as team:
        packed = pack(team.state, name, [raw], 256)
    values = np.zeros((16, 256), np.float32)
    dequantize(name, raw, values)
    print(name, packed.quants.sum(), packed.scales.sum(), float(np.abs(values).sum()))
"""


def test_kernels_of_two_processes_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    def run(*names: str) -> str:
        environment = {**os.environ, "DLLAMA_CACHE": str(tmp_path)}
        environment.pop("NUMBA_CACHE_DIR", None)
        done = subprocess.run(
            [sys.executable, "-c", PACK, *names],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    alone = [run("q4_0"), run("q8_0")]
    assert run("q4_0", "q8_0") == "".join(alone)
    assert run("q8_0", "q4_0") == "".join(reversed(alone))
