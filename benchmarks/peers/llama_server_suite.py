"""Runs llama-server's own test-suite against dllama-root, offline, and prints a table by file.

None of it is here: the suite is the folder tools/server/tests of a checkout of llama.cpp. It is
copied for the run, and starts a stand-in for llama-server (llama_server_stand_in.py). Tests of
other models than stories260K and of llama-server's own tools cannot run offline and are counted
apart; so are those of downloads, unless HF_ENDPOINT names a hub. Routers find stories260K under the
names of the suite's three small models in a cache. The interpreter needs pytest, requests, wget,
openai and filelock.

  python -m benchmarks.peers.llama_server_suite llama.cpp/tools/server/tests stories260K.gguf
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.llama_server_plugin import RECORD_VARIABLE
from benchmarks.peers.llama_server_stand_in import MODEL_VARIABLE, NOTES_VARIABLE, ROUTER_VARIABLE

REPOSITORY = Path(__file__).resolve().parents[2]
ROUTERS = ("test_router", "test_stream", "test_mcp_servers", "test_tools_builtin")
CACHED = {  # what the suite's routers find in a cache, by repository
    "ggml-org/tinygemma3-GGUF": "Q8_0",
    "ggml-org/test-model-stories260K": "F32",
    "ggml-org/test-model-stories260K-infill": "F32",
}
COMMIT = "0" * 40
OUTCOMES = ("passed", "failed", "skipped", "cannot run")
STAND_IN = '#!/bin/sh\nexec {python} -m benchmarks.peers.llama_server_stand_in "$@"\n'

Line = dict[str, str]  # test, outcome, reason


def copied(suite: Path, folder: Path) -> Path:
    """Returns a copy of the suite, with the chat templates where its tests look for them."""
    tests = folder / "tools" / "server" / "tests"
    shutil.copytree(suite, tests, ignore=shutil.ignore_patterns("tmp", "__pycache__"))
    (tests / "tmp").mkdir()
    (folder / "models").symlink_to(suite.resolve().parents[2] / "models")
    return tests


def fill_cache(cache: Path, model: Path) -> None:
    """Makes a cache of the hub in which the model has the names of CACHED."""
    for repository, tag in CACHED.items():
        folder = cache / f"models--{repository.replace('/', '--')}"
        snapshot = folder / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)
        shutil.copy(model, snapshot / f"model-{tag}.gguf")


def environment_of(folder: Path, model: Path, port: int) -> dict[str, str]:
    """Returns the environment of the suite and of the servers it starts."""
    stand_in = folder / "llama-server"
    stand_in.write_text(STAND_IN.format(python=sys.executable))
    stand_in.chmod(0o755)
    return os.environ | {
        "LLAMA_SERVER_BIN_PATH": str(stand_in),
        MODEL_VARIABLE: str(model.resolve()),
        NOTES_VARIABLE: str(folder / "notes"),
        RECORD_VARIABLE: str(folder / "record"),
        "PORT": str(port),
        "HF_HUB_CACHE": str(folder / "hub"),
        "DLLAMA_MODELS": str(folder / "pulled"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_file(
    file: Path, tests: Path, environment: dict[str, str], args: argparse.Namespace
) -> list[Line]:
    """Runs a file of the suite and returns the lines of its tests; one that is stopped has the line
    of a failure more."""
    record = Path(environment[RECORD_VARIABLE])
    record.write_text("")
    environment = {**environment, ROUTER_VARIABLE: "1" if file.stem in ROUTERS else ""}
    program = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p",
        "benchmarks.peers.llama_server_plugin", "-m", "not slow", "--timeout",
        str(args.test_timeout),
        str(file.relative_to(tests)),
    ]  # fmt: skip
    if args.only:
        program += ["-k", args.only]
    log = tests.parent / f"{file.stem}.log"
    is_stopped = not finishes(program, tests, environment, log, args.file_timeout)
    if args.logs is not None:
        shutil.copy(log, args.logs)
    lines: list[Line] = [json.loads(line) for line in record.read_text().splitlines()]
    if is_stopped:
        lines.append({"test": file.name, "outcome": "failed", "reason": "the file took too long"})
    return lines


def finishes(
    program: list[str], folder: Path, environment: dict[str, str], log: Path, timeout_s: float
) -> bool:
    """Runs a program to its end; one that takes too long is ended with all that it has started."""
    with log.open("w") as output:
        running = subprocess.Popen(
            program, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    return True


def row(name: str, lines: Sequence[Line]) -> str:
    counts = Counter(line["outcome"] for line in lines)
    return f"{name:<32}" + "".join(f"{counts[outcome]:>12}" for outcome in OUTCOMES)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", type=Path, help="tools/server/tests of a checkout of llama.cpp")
    parser.add_argument("model", type=Path, help="a local stories260K.gguf")
    parser.add_argument("--files", nargs="*", default=[], help="only these, such as test_basic")
    parser.add_argument("--only", help="only tests that match, as pytest's -k")
    parser.add_argument("--port", type=int, default=18480, help="where the servers listen")
    parser.add_argument("--test-timeout", type=int, default=90, help="seconds a test may take")
    parser.add_argument("--file-timeout", type=int, default=1200, help="seconds a file may take")
    parser.add_argument("--logs", type=Path, help="a folder that keeps the output of each file")
    parser.add_argument("--json", type=Path, help="a file for the outcome of every test")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    found: list[Line] = []
    print(f"{'file':<32}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES))
    with tempfile.TemporaryDirectory(prefix="llama-suite-") as name:
        folder = Path(name)
        tests = copied(args.suite, folder)
        environment = environment_of(folder, args.model, args.port)
        fill_cache(folder / "hub", args.model)
        for file in sorted((tests / "unit").glob("test_*.py")):
            if args.files and file.stem not in args.files:
                continue
            lines = run_file(file, tests, environment, args)
            found += lines
            print(row(file.stem, lines), flush=True)
    print(row("all", found))
    for outcome in ("failed", "cannot run"):
        print(f"\n{outcome}:")
        for line in found:
            if line["outcome"] == outcome:
                print(f"  {line['test'].removeprefix('unit/')}: {line['reason'].splitlines()[0]}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
