"""Runs dllama on emulated AArch64 processors: `make test-arm64`.

The first run fetches an arm64 Python, the packages that dllama needs and qemu into a folder, some
180 MB. Then, on each processor: the family of instructions that dllama chooses, products of all
quant types against those of this machine, bit for bit, a kernel that is compiled there against the
same kernel compiled here, and (all other kernels are compiled here, for that processor) the logits
of the packaged model, again bit for bit, an answer of `dllama run`, and tests of kernels. Ends with
1 where something differs, and says so and ends with 0 where this machine cannot emulate.

    python -m tests.arm64                      # everything on max; products on the others
    python -m tests.arm64 --only products      # of processors and checks, those with these words
    python -m tests.arm64 --all                # everything on each
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.arm64.emulator import CPUS, Emulator
from tests.arm64.logits import logits
from tests.arm64.sysroot import HOUSE, Missing, prepare
from tests.arm64.tile_cases import write_cases

CACHE = HOUSE / ".cache" / "arm64"
QUESTION = "How do I start a worker?"
RUN = ("dllama", "run", "--temperature", "0", "-n", "24", "-t", "1", QUESTION)
KERNEL_TESTS = (
    "tests/kernels/matmul/test_multiply.py", "tests/kernels/test_activations.py",
    "tests/kernels/test_team.py", "tests/kernels/attention/test_causal.py",
)  # fmt: skip
CHOSEN = "1thread and (q4_0 or q6_k or mxfp4 or tiles or 100) or every_item or wakes_up"
FIRST = "max"


class Check(NamedTuple):
    """What is tried on a processor: run(emulator, cpu, folder, seconds) returns a sentence, and
    raises Different where something is not as it should be."""

    name: str
    is_heavy: bool  # it runs a model or many tests
    run: Callable[[Emulator, str, Path, float], str]


class Different(Exception):
    """A sentence: what differs."""


def _printed(run: Callable[[], subprocess.CompletedProcess[str]], seconds: float) -> str:
    """What a program prints there. Raises Different where it fails."""
    try:
        done = run()
    except subprocess.TimeoutExpired:
        raise Different(f"took longer than {seconds:.0f} s (--limit sets more)") from None
    if done.returncode:
        raise Different(f"ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def _python(emulator: Emulator, seconds: float, *args: str) -> str:
    return _printed(lambda: emulator.run(*args, limit_s=seconds), seconds)


def _module(emulator: Emulator, seconds: float, folder: Path, *args: str) -> str:
    """What a module prints there whose kernels are compiled here."""
    return _printed(lambda: emulator.run_module(*args, limit_s=seconds, folder=folder), seconds)


def _family(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    code = "from kernels.cpu import available_isas as a; print(*a())"
    found = tuple(_python(emulator, seconds, "-c", code).split())
    if found != CPUS[cpu].families:
        raise Different(f"dllama found {found} and not {CPUS[cpu].families}")
    return f"computes with {found[0]}"


def _products(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    cases = folder / "cases.npz"
    if not cases.is_file():
        write_cases(cases)
    return _python(emulator, seconds, "-m", "tests.arm64.tile_cases", str(cases)).strip()


def _compiled(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    """Compares what the emulated compiler makes of a small kernel with what this machine makes."""
    name = "tests.arm64.one_kernel"
    own = _python(emulator, seconds, "-m", name)
    from_here = _module(emulator, seconds, folder, name)
    if own != from_here or not own.strip():
        raise Different(
            f"the code of a kernel is {own.strip()!r} there, {from_here.strip()!r} here"
        )
    return f"a kernel has the same code, compiled there and here: {own.strip()}"


def _logits(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    there, here = folder / f"{cpu}.npy", logits()
    _module(emulator, seconds, folder, "tests.arm64.logits", str(there))
    found = np.load(there, allow_pickle=False)
    if not np.array_equal(found, here):
        n, most = np.count_nonzero(found != here), np.abs(found - here).max()
        raise Different(f"{n} of {here.size} logits are other ones, by up to {most}")
    return f"{here.size} logits, all of them the same bits as here"


def _answer(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    here = subprocess.run(
        [sys.executable, "-m", *RUN], cwd=HOUSE, capture_output=True, text=True, timeout=seconds,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
    ).stdout  # fmt: skip
    found = _module(emulator, seconds, folder, *RUN)
    if found != here or not found.strip():
        raise Different(f"answered {found!r} and not {here!r}")
    return f"dllama run answered {found.strip()!r}, as here"


def _kernels(emulator: Emulator, cpu: str, folder: Path, seconds: float) -> str:
    options = ("-q", "-p", "no:cacheprovider", "--timeout=0", "-k", CHOSEN)
    printed = _module(emulator, seconds, folder, "pytest", *options, *KERNEL_TESTS)
    return printed.strip().splitlines()[-1]


CHECKS = (
    Check("family", False, _family),
    Check("products", False, _products),
    Check("compiled", True, _compiled),
    Check("logits", True, _logits),
    Check("answer", True, _answer),
    Check("kernels", True, _kernels),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the checks that are asked for; returns the exit code."""
    args = _arguments(argv)
    try:
        sysroot = prepare(args.cache)
    except Missing as error:
        print(f"skipped: nothing ran on AArch64, as {error}.")
        return 0
    n_wrong = 0
    with tempfile.TemporaryDirectory(prefix="dllama-arm64-") as folder:
        for cpu in CPUS:
            emulator = Emulator(sysroot, cpu)
            for check in CHECKS:
                asked = not args.only or all(w in (cpu, check.name) for w in args.only)
                is_due = args.all or args.only or cpu == FIRST or not check.is_heavy
                if asked and is_due:
                    n_wrong += not _passes(check, emulator, cpu, Path(folder), args.limit)
    return int(n_wrong > 0)


def _passes(check: Check, emulator: Emulator, cpu: str, folder: Path, seconds: float) -> bool:
    began, word = time.monotonic(), "ok"
    try:
        told = check.run(emulator, cpu, folder, seconds)
    except Different as error:
        word, told = "DIFFERS", str(error)
    print(
        f"{cpu:12} {check.name:10} {word:8} {time.monotonic() - began:6.0f} s  {told}", flush=True
    )
    return word == "ok"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.arm64", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="WORD", default=[],
                        choices=[*CPUS, *(check.name for check in CHECKS)],
                        help="names of a processor, of a check, or of both")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="everything on every processor")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for each check")
    parser.add_argument("--cache", type=Path, default=CACHE, help="the folder for what is fetched")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
