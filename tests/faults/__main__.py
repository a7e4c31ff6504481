"""Puts small faults in, one at a time, and says which of them no test catches: `make faults`.

The faults are data, `*.toml` beside this file: a name, a file, the text to replace (which has to
be in the file once), its replacement, and the tests that should notice. All of it happens in a
copy of what git tracks; the checkout stays as it is. Tests that fail without a fault are said, for
then they catch nothing.

    python -m tests.faults                    # all of them
    python -m tests.faults constraints api/stop   # of an area, or with these words
    python -m tests.faults --check            # only whether every text is still there
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

HERE = Path(__file__).parent
HOUSE = HERE.parents[1]
LIMIT_S = 300.0  # for the tests of one fault; what hangs is caught
TESTS_FAILED, INTERRUPTED = 1, 2  # exit codes of pytest


class Outcome(StrEnum):
    CAUGHT = "caught"
    SURVIVES = "SURVIVES"
    UNMATCHED = "UNMATCHED"  # the text to replace is not in the file, or more than once
    UNTESTED = "UNTESTED"  # the tests fail without the fault, or do not run


@dataclass(frozen=True, slots=True)
class Fault:
    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def is_asked_for(self, words: Sequence[str]) -> bool:
        """Whether one of the words is its area, or is in its name or file; all are, of none."""
        return not words or any(w == self.area or w in self.name or w in self.file for w in words)

    def is_there(self, tree: Path) -> bool:
        """Whether the text to replace is in its file, once."""
        path = tree / self.file
        return path.is_file() and path.read_text(encoding="utf-8").count(self.old) == 1


def read_faults() -> list[Fault]:
    """All faults, in the order of their files."""
    found = []
    for path in sorted(HERE.glob("*.toml")):
        for row in tomllib.loads(path.read_text(encoding="utf-8"))["fault"]:
            found.append(Fault(path.stem, **{**row, "tests": tuple(row["tests"])}))
    return found


def copy_tree(target: Path) -> None:
    """Copies what git tracks, and what it would, as it is in the checkout now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=HOUSE, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = HOUSE / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)


def run_tests(tree: Path, tests: Sequence[str]) -> int | None:
    """The exit code of pytest over these tests of the tree; None where time ran out."""
    environment = {
        "DLLAMA_SHARED": str(HOUSE.parent / "shared"),  # of the checkout
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    process = subprocess.Popen(
        command, cwd=tree, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)  # the tests' own processes too
            process.wait()


class Trial:
    """Tries faults in one copy of the tree."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._passes: dict[tuple[str, ...], bool] = {}  # without a fault

    def outcome(self, fault: Fault) -> Outcome:
        """What becomes of one fault; the copy is whole again afterwards."""
        if not fault.is_there(self._tree):
            return Outcome.UNMATCHED
        if fault.tests not in self._passes:
            self._passes[fault.tests] = run_tests(self._tree, fault.tests) == 0
        if not self._passes[fault.tests]:
            return Outcome.UNTESTED
        path = self._tree / fault.file
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
        try:
            code = run_tests(self._tree, fault.tests)
        finally:
            path.write_text(whole, encoding="utf-8")
        if code in (None, TESTS_FAILED, INTERRUPTED):
            return Outcome.CAUGHT
        return Outcome.SURVIVES if code == 0 else Outcome.UNTESTED


def outcomes(faults: Sequence[Fault], *, only_check: bool) -> Iterator[tuple[Fault, Outcome]]:
    if only_check:
        for fault in faults:
            yield fault, Outcome.CAUGHT if fault.is_there(HOUSE) else Outcome.UNMATCHED
        return
    with tempfile.TemporaryDirectory(prefix="dllama-faults-") as folder:
        copy_tree(Path(folder))
        trial = Trial(Path(folder))
        for fault in faults:
            yield fault, trial.outcome(fault)


def main() -> int:
    """0 where every fault that was asked for is caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="areas, or words of names and files; none: all")
    parser.add_argument("--check", action="store_true", help="runs no tests")
    args = parser.parse_args()
    faults = [fault for fault in read_faults() if fault.is_asked_for(args.words)]
    counts: Counter[Outcome] = Counter()
    began_s = time.monotonic()
    for i, (fault, outcome) in enumerate(outcomes(faults, only_check=args.check), start=1):
        counts[outcome] += 1
        took_s, began_s = time.monotonic() - began_s, time.monotonic()
        if not args.check or outcome is not Outcome.CAUGHT:
            line = f"[{i:3}/{len(faults)}] {outcome:9} {took_s:6.1f} s  {fault.file}: {fault.name}"
            print(line, flush=True)
    if args.check:
        print(f"{counts[Outcome.UNMATCHED]} of {len(faults)} no longer match")
    else:
        print(", ".join(f"{n} {outcome}" for outcome, n in counts.items()))
    return 0 if counts.keys() <= {Outcome.CAUGHT} else 1


if __name__ == "__main__":
    sys.exit(main())
