"""The paths that training writes and evaluation reads, relative to the repository."""

from __future__ import annotations

from pathlib import Path

OUT = Path("dllama/data/dllama-demo.q8_0.gguf")  # shipped
WORK = Path("build/demo_model")  # data, checkpoints, the F16 twin, results
