"""llama.cpp's side of benchmarks.perplexity: its programs llama-quantize and llama-perplexity."""

from __future__ import annotations

import math
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllama.formats.gguf import GgufFile

PROGRAMS = ("llama-quantize", "llama-perplexity")
EMBEDDING = "Q8_0"  # of the embedding, which is the head too where a model has no other
TRIES = 3  # it may end before a thread of its own has written the last lines
_NUMBER = r"(-?[\d.]+(?:e[-+]?\d+)?|-?nan|-?inf)"
_RUNNING = re.compile(rf"^\s*\d+\s+{_NUMBER} ±", re.MULTILINE)  # of all windows so far
_PERPLEXITY = re.compile(rf"^Mean PPL\(Q\)\s*:\s*{_NUMBER} ±", re.MULTILINE)
_DIVERGENCE = re.compile(rf"^Mean\s+KLD:\s*{_NUMBER} ±", re.MULTILINE)


class CannotWrite(Exception):
    """llama.cpp does not write a type of weights."""


@dataclass(frozen=True, slots=True)
class PeerEstimate:
    """llama.cpp's perplexity, the one after each window, which has four decimals, and the mean KL
    divergence of its probabilities from those of the base."""

    perplexity: float
    running: list[float]
    divergence: float


class LlamaPrograms:
    """The programs in a folder, each run with a number of threads. Raises SystemExit where one is
    not there."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder.resolve(), threads
        for name in PROGRAMS:
            if not os.access(self._folder / name, os.X_OK):
                raise SystemExit(
                    f"{self._folder / name} is no program; docs/benchmarks.md says how it is built"
                )

    def quantize(self, source: Path, path: Path, kind: str) -> None:
        """Writes a file whose matrices of layers are of a type, the embedding and the head Q8_0.
        All columns weigh alike in the search for scales. Raises CannotWrite."""
        weights = path.with_suffix(".imatrix")
        weights.write_bytes(b"".join(_importance_of_ones(source)))
        try:
            self._written(
                path, "--allow-requantize", "--pure", "--imatrix", weights,
                "--token-embedding-type", EMBEDDING, "--output-tensor-type", EMBEDDING,
                "--tensor-type", rf"^blk\.={kind}", source, path, EMBEDDING,
            )  # fmt: skip
        finally:
            weights.unlink()

    def dequantize(self, source: Path, path: Path) -> None:
        """Writes the values of all tensors as float32. Raises CannotWrite."""
        self._written(path, "--allow-requantize", source, path, "F32")

    def _written(self, path: Path, *words: str | Path) -> None:
        run = self._run("llama-quantize", *words, str(self._threads))
        if run.returncode or not path.exists():
            path.unlink(missing_ok=True)
            raise CannotWrite(_last_line(run))

    def estimate(self, path: Path, base: Path, width: int, kv_type: str) -> PeerEstimate:
        """Reads the windows of a base model's file (dllama/divergence/base_file.py), which has
        100 counted tokens or more. Raises SystemExit where it does not read the model."""
        for _ in range(TRIES):
            run = self._run(
                "llama-perplexity", "-m", path, "--kl-divergence", "--kl-divergence-base", base,
                "-c", str(width), "-b", str(width), "-t", str(self._threads),
                "-ctk", kv_type, "-ctv", kv_type,
            )  # fmt: skip
            perplexity = _PERPLEXITY.search(run.stdout)
            divergence = _DIVERGENCE.search(run.stdout)
            if run.returncode:
                break
            if perplexity is not None and divergence is not None:
                running = [float(found[1]) for found in _RUNNING.finditer(run.stdout)]
                return PeerEstimate(float(perplexity[1]), running, float(divergence[1]))
        raise SystemExit(f"llama-perplexity tells nothing of {path}: {_last_line(run)}")

    def _run(self, name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._folder / name, *words], capture_output=True, text=True, errors="replace"
        )


def _importance_of_ones(source: Path) -> Iterator[bytes]:
    """Yields an importance matrix in llama-imatrix's older format, without which there are no types
    of less than 3 bits: an entry for each matrix, all columns alike."""
    with closing(GgufFile(source)) as model:
        matrices = [tensor for tensor in model.tensors.values() if len(tensor.dims) > 1]
    yield struct.pack("<i", len(matrices))
    for tensor in matrices:
        name = tensor.name.encode()
        n_columns = tensor.cols * math.prod(tensor.dims[2:])  # of every expert
        yield struct.pack(f"<i{len(name)}sii", len(name), name, 1, n_columns)
        yield np.ones(n_columns, "<f4").tobytes()


def _last_line(run: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (run.stderr + run.stdout).splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'no word'} (status {run.returncode})"
