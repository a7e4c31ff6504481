"""Plain TCP exchanges as many bytes as ranks do, however large they are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks.lan.floor import compiled, exchanges_of, why_no_floor
from benchmarks.namespaces import await_listening
from benchmarks.random_model import SHAPES
from tests.ports import own_port


def test_exchanges_are_counted_by_their_size() -> None:
    shape = SHAPES["llama-3.2-1b"]
    exact, prompt, q80, _ = exchanges_of(shape, ["exact", "f32", "q80"], [1, 512])
    assert exact.sync_types == ("exact", "f32") and exact.n_bytes == 4 * 2048
    assert exact.n == 2 * 16 + 1
    assert prompt.n_rows == 512 and prompt.n_bytes == 512 * exact.n_bytes
    assert q80.sync_types == ("q80",) and q80.n_bytes == 2048 + 2 * 64


@pytest.mark.parametrize("looks", [0, 1])
def test_both_ends_send_more_than_a_connection_holds(tmp_path: Path, looks: int) -> None:
    why_not = why_no_floor()
    if why_not is not None:
        pytest.skip(why_not)
    program, port = str(compiled(tmp_path)), own_port()
    numbers = [str(port), str(20 << 20), "2", "3", "1", str(looks)]
    listening = subprocess.Popen([program, "listen", *numbers], stdout=subprocess.PIPE, text=True)
    try:
        await_listening(listening.pid, port, 60)
        asked = subprocess.run(
            [program, "127.0.0.1", *numbers], check=True, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        said, _ = listening.communicate(timeout=60)
    finally:
        listening.kill()
        listening.wait()
    for lines in (asked.stdout.split(), said.split()):
        assert len(lines) == 3 and all(float(line) > 0 for line in lines)
    assert os.access(program, os.X_OK)


def test_an_end_that_goes_away_ends_the_other(tmp_path: Path) -> None:
    why_not = why_no_floor()
    if why_not is not None:
        pytest.skip(why_not)
    program, port = str(compiled(tmp_path)), own_port()
    listening = subprocess.Popen([program, "listen", str(port), "99", "9", "1000000", "1", "0"])
    try:
        await_listening(listening.pid, port, 60)
        words = [program, "127.0.0.1", str(port), "99", "9", "1", "1", "0"]
        subprocess.run(words, check=True, capture_output=True, timeout=60)
        assert listening.wait(60) == 1
    finally:
        listening.kill()
        listening.wait()
