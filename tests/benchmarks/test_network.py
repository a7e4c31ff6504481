"""The whole bench on a tiny model: asserts what is told, never how fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from benchmarks import network
from benchmarks.lan.floor import why_no_floor
from benchmarks.namespaces import why_no_namespaces
from benchmarks.random_m_model import main as write_m
from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.leaks import no_leaks

__all__ = ["no_leaks"]

# distributed-llama's program as far as a bench sees it: a worker listens, a root prints rates.
STAND_IN = """#!{python}
import socket, sys
if sys.argv[1] == "worker":
    host, port = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--host", "--port"))
    with socket.create_server((host, int(port))) as listening:
        while True:
            listening.accept()[0].close()
host, port = sys.argv[sys.argv.index("--workers") + 1].split(":")
socket.create_connection((host, int(port)), 60).close()
print("Evaluation\\n  tokens/s: 5.5\\nPrediction\\n  tokens/s: 2.5")
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "dllama"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("no_leaks")
def test_set_ups_run_in_turn_between_namespaces(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    why_not = why_no_namespaces()
    if why_not is not None:
        pytest.skip(why_not)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two nodes need two cores")
    model, out = tmp_path / "tiny.m", tmp_path / "found.json"
    assert write_m(["tiny", str(model)]) == 0
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "1")  # restored after main has changed it
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # pytest keeps its own
    words = ["--models", str(model), "--tests", "pp16,tg4,tg2xb2", "--rounds", "1", "--json",
             str(out), "--sync-types", "exact", "--encrypt", "off"]  # fmt: skip
    assert network.main([*words, "--distributed-llama", str(program)]) == 0
    found = json.loads(out.read_text())
    assert {"processor", "cores", "kernel", "date", "commit"} <= found["machine"].keys()
    [run] = found["runs"]
    rows = {(row["set_up"], row["test"]): row for row in run["rows"]}
    ours, theirs = "2 nodes, exact, plain", "distributed-llama, 2 nodes"
    floor = "plain TCP in C, exact"
    has_floor = why_no_floor() is None
    expected = set(product(("one node, 1 core", "one node, 2 cores", ours), run["tests"]))
    expected |= {(theirs, "pp16"), (theirs, "tg4")}
    expected |= {(floor, "tg4"), (floor, "tg2xb2")} if has_floor else set()
    assert set(rows) == expected
    assert rows["one node, 2 cores", "tg4"]["of_one_node"] == 1.0
    assert rows[theirs, "pp16"]["tokens_per_s"] == 5.5
    assert rows["one node, 1 core", "tg4"]["network_ms"] == 0 < rows[ours, "tg4"]["network_ms"]
    ranks = rows[ours, "tg4"]["ranks"]
    assert [rank["threads"] for rank in ranks] == [1, 1]
    assert all(rank["sent_bytes"] > 0 for rank in ranks), "nothing went through shared memory"
    if has_floor:
        assert [bare["exchanges"]["n_rows"] for bare in run["floors"]] == [1, 16]
        assert rows[floor, "tg4"]["compute_ms"] > 0 < rows[floor, "tg4"]["network_ms"]
    told = capsys.readouterr().out
    assert ours in told and f"as fast as {theirs}" in told
    assert f"| {ours} |" in out.with_suffix(".md").read_text()


@pytest.mark.usefixtures("no_leaks")
def test_nothing_is_left_of_a_bench_that_is_ended(tmp_path: Path) -> None:
    why_not = why_no_namespaces()
    if why_not is not None:
        pytest.skip(why_not)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two nodes need two cores")
    words = ["--models", str(DEFAULT_MODEL), "--json", str(tmp_path / "found.json")]
    bench = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.network", *words],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    tag = f"dl{bench.pid}-"
    until_s = time.monotonic() + 60
    while tag not in namespaces() and bench.poll() is None and time.monotonic() < until_s:
        time.sleep(0.02)
    assert tag in namespaces()
    bench.terminate()
    assert bench.wait(60) == 128 + signal.SIGTERM
    assert tag not in namespaces() and not list(tmp_path.iterdir())


def namespaces() -> str:
    """Returns the names of all network namespaces."""
    return subprocess.run(
        ["ip", "netns", "list"], check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", "1"], "--nodes is 2 or more"),
        (["--encrypt", "perhaps"], "--encrypt is on, off or on,off"),
        (["--tests", "pp"], "'pp' is no test"),
        (["--rates", "fast"], "fast"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        network.main(words)
    assert said in capsys.readouterr().err


def test_nodes_need_cores_and_programs_need_to_be_there(tmp_path: Path) -> None:
    own = sorted(os.sched_getaffinity(0))
    assert network.node_cores(1, len(own)) == [own]
    with pytest.raises(SystemExit, match=r"999 nodes with 2 core.*need 1998 cores"):
        network.node_cores(999, 2)
    parser = network.build_parser()
    for flag in ("--distributed-llama", "--llama-cpp"):
        with pytest.raises(SystemExit, match=r"is no program; docs/benchmarks\.md"):
            network.programs_of(parser.parse_args([flag, str(tmp_path / "none")]))
    model = tmp_path / "m.gguf"
    args = parser.parse_args(["--models", str(model)])
    assert network.models_of(args, network.Programs())[0].gguf == model
    with pytest.raises(SystemExit, match=r"needs .*m\.m beside m\.gguf"):
        network.models_of(args, network.Programs(distributed_llama=tmp_path / "dllama"))
    args = parser.parse_args(["--models", str(model.with_suffix(".m"))])
    with pytest.raises(SystemExit, match=r"GGUF files alone, not m\.m"):
        network.models_of(args, network.Programs(batched_bench=tmp_path / "llama-batched-bench"))
