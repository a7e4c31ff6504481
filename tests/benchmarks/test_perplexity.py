"""The whole bench on the packaged model beside stand-ins for llama.cpp's programs."""

from __future__ import annotations

import json
import math
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import perplexity
from benchmarks.peers.llama_perplexity import CannotWrite, LlamaPrograms
from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.leaks import no_leaks

__all__ = ["no_leaks"]

ROOT = Path(__file__).resolve().parents[2]
# Copies the model whatever the type, keeps the importance matrix, and knows no Q2_0.
QUANTIZE = """#!{python}
import shutil, sys
if any(word.endswith("=Q2_0") for word in sys.argv):
    sys.exit("invalid ggml_type")
if "--imatrix" in sys.argv:
    shutil.copy(sys.argv[sys.argv.index("--imatrix") + 1], {folder!r} + "/ones")
shutil.copy(sys.argv[-4], sys.argv[-3])
"""
# Has the probabilities of the base, each divided by 1.01. The unlikeliest tokens are too likely in
# its file, so texts that the model does not know are as well.
PERPLEXITY = """#!{python}
import sys
sys.path.insert(0, {root!r})
from math import exp
from pathlib import Path
from dllama.divergence.base_file import BaseFile
base = BaseFile(Path(sys.argv[sys.argv.index("--kl-divergence-base") + 1]))
losses = []
for number, window in enumerate(base.windows):
    for at, row in enumerate(base.rows(number), start=base.width // 2 + 1):
        losses.append(-float(row[window[at]]))
    running = 1.01 * exp(sum(losses) / len(losses))
    print(f"   {{number + 1}}    {{running:9.4f}} ±    0.1234       0.00995 ±    0.00000 ...")
print(f"Mean PPL(Q)                   : {{running:10.6f}} ±   0.123400")
print("Mean    KLD:   0.000123 ±   0.000004")
base.close()
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, text in (("llama-quantize", QUANTIZE), ("llama-perplexity", PERPLEXITY)):
        path = tmp_path / name
        words = {"python": sys.executable, "root": str(ROOT), "folder": str(tmp_path)}
        path.write_text(text.format(**words))
        path.chmod(0o755)
    return tmp_path


@pytest.fixture(autouse=True)
def _pytest_keeps_its_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


@pytest.mark.usefixtures("no_leaks")
def test_both_perplexities_stand_side_by_side(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, short = programs / "found.json", ["--window", "64", "--windows", "5", "--threads", "1"]
    words = ["--llama-cpp", str(programs), "--types", "q8_0,Q2_0,Q4_0", "--exact", *short,
             "--json", str(out)]  # fmt: skip
    assert perplexity.main([*words, "--limit", "20"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["text"], row["type"]) for row in rows] == [("demo", "Q8_0"), ("log.md", "Q8_0")]
    own, unknown = rows
    assert own["dllama"] < 10 < 1000 < unknown["dllama"], "the model knows one of the texts"
    assert own["llama_cpp"] == pytest.approx(1.01 * own["dllama"], rel=1e-3)
    assert own["difference"] == pytest.approx(1 / 1.01 - 1, abs=1e-3)
    assert own["exact"] == own["llama_cpp"] and own["divergence"] == 0.000123
    assert own["error"] < 1e-3 and own["n_windows"] == 5
    told = capsys.readouterr()
    assert "does not write Q2_0: invalid ggml_type" in told.err
    assert "does not write Q4_0: its matrices became F32, Q8_0" in told.err
    assert "KL divergence" in told.out and "more than" not in told.out


def test_a_file_as_it_is_and_a_difference_that_is_too_large(
    programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--llama-cpp", str(programs), "--types", "file", "--texts", "demo", "--window", "64",
             "--windows", "4", "--threads", "1"]  # fmt: skip
    assert perplexity.main(words) == 1
    assert "more than 0.5 % from llama.cpp's: file (demo)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--llama-cpp", "/nowhere"], "docs/benchmarks.md says how it is built"),
        (["--types", "Q4_9"], "Q4_9 is no type of weights"),
        (["--texts", "/nowhere/text"], "/nowhere/text is no file"),
        (["--model", str(ROOT / "README.md")], "GGUF files alone"),
        (["--texts", "demo", "--window", "64", "--windows", "1"], "count 100 at least"),
    ],
)
def test_what_makes_no_sense_is_told(programs: Path, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        perplexity.main(["--llama-cpp", str(programs), *words])


def test_all_columns_weigh_alike(programs: Path) -> None:
    peer, path = LlamaPrograms(programs, 1), programs / "model.gguf"
    peer.quantize(DEFAULT_MODEL, path, "IQ2_XS")
    raw = (programs / "ones").read_bytes()
    (n_entries,), at, found = struct.unpack_from("<i", raw), 4, {}
    for _ in range(n_entries):
        (n_name,) = struct.unpack_from("<i", raw, at)
        name = raw[at + 4 : at + 4 + n_name].decode()
        n_calls, n_columns = struct.unpack_from("<ii", raw, at + 4 + n_name)
        at += 12 + n_name + 4 * n_columns
        assert n_calls == 1
        assert np.all(np.frombuffer(raw, "<f4", n_columns, at - 4 * n_columns) == 1)
        found[name] = n_columns
    assert at == len(raw) and found["blk.0.ffn_down.weight"] == 768
    assert not path.with_suffix(".imatrix").exists()
    with pytest.raises(CannotWrite, match="invalid ggml_type"):
        peer.quantize(DEFAULT_MODEL, path, "Q2_0")
    assert not path.exists()


def test_the_error_is_that_of_the_differences_of_windows() -> None:
    ours, theirs = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    running = [
        [math.exp(losses[:n].mean()) for n in (1, 2, 3)] for losses in (ours, theirs)
    ]  # fmt: skip
    expected = np.std(ours - theirs, ddof=1) / math.sqrt(3)
    assert perplexity.error_of(*running) == pytest.approx(expected)
