"""A command that is told to end leaves in order, whoever tells it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.host.child_python import HOUSE

WRITES = """
import signal, sys, time
from pathlib import Path
from dllama.cli.terminal.guarded import guarded
from dllama.formats.writing.streamed import StreamedFile

def work(argv):
    with StreamedFile(Path(sys.argv[1]), b"x" * 100_000, []):
        print("ready", flush=True)
        time.sleep(60)
    return 0

for number in (signal.SIGTERM, signal.SIGHUP):  # whatever the tests were started with
    is_ignored = str(int(number)) in sys.argv[2:]
    signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
sys.exit(guarded(work)())
"""


def started(path: Path, *ignored: signal.Signals) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITES, str(path), *(str(int(n)) for n in ignored)]
    child = subprocess.Popen(
        words, cwd=HOUSE, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_nothing_half_written_stays(tmp_path: Path, sig: signal.Signals) -> None:
    child = started(tmp_path / "out.gguf")
    assert list(tmp_path.iterdir())
    child.send_signal(sig)
    try:
        _, said = child.communicate(timeout=30)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 128 + sig
    assert said == "" and not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    child = started(tmp_path / "out.gguf", signal.SIGHUP)  # as after nohup
    child.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    child.terminate()
    child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM
