"""A short comparison of tiny models; asserts what is told, never how fast."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare_tables import int8_share, memory_share
from benchmarks.peers.with_distributed_llama import Program, Rates, read_rates
from benchmarks.random_m_model import main as write_m
from dllama.formats import open_model
from dllama.qtypes import QType
from dllama.tokenizer import Tokenizer
from tests.references.forward import reference_logits

SAID = """🔶 Pred  122 ms Sync    0 ms | Sent     0 kB Recv     0 kB | jLI

Evaluation
   nBatches: 32
    nTokens: 9
   tokens/s: 5.57 (179.58 ms/tok)
Prediction
    nTokens: 31
   tokens/s: 3.20 (312.02 ms/tok)
"""
STAND_IN = """#!{python}
import sys
assert sys.argv[1] == "inference" and sys.argv[sys.argv.index("--buffer-float-type") + 1] == "q80"
print(sys.argv[sys.argv.index("--prompt") + 1])
print({said!r})
"""  # prints what the program prints


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "dllama"
    path.write_text(STAND_IN.format(python=sys.executable, said=SAID))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("tiny") / "tiny.m"
    assert write_m(["tiny", str(path)]) == 0
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["compare", *words, "--threads", "1", "-r", "1"])
    return compare.main()


def test_ours_alone_and_beside_distributed_llama(
    tiny: Path, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "found.json"
    words = ["--models", str(tiny), "--tests", "pp16,tg4@d20,tg4xb2", "--json", str(out)]
    assert run(monkeypatch, *words) == 0
    told = capsys.readouterr().out
    assert "tg4xb2" in told and "load s" in told and "%" in told and "ratio" not in told
    assert run(monkeypatch, *words, "--distributed-llama", str(program)) == 0
    told = capsys.readouterr().out
    assert "distributed-llama" in told and "tg4xb2" not in told, "it has no batches"
    found = json.loads(out.read_text())
    prompt, answer = found["rows"]
    assert prompt["distributed-llama"]["median"] == 5.57
    assert answer["distributed-llama"]["median"] == 3.20
    assert answer["ratio"] == pytest.approx(answer["dllama"]["median"] / 3.20)
    source = open_model(tiny)
    matrices = [t.rows * t.cols for name, t in source.tensors.items()
                if t.rows > 1 and name not in ("embed", "wcls")]  # fmt: skip
    assert prompt["weights"] == {"body": sum(matrices), "head": 2048 * 256}
    facts = found["machine"]
    of_memory, of_products = memory_share(answer, facts), int8_share(prompt, facts)
    assert of_memory is not None and of_memory > 0
    assert of_products is not None and of_products > 0
    assert memory_share(prompt, facts) is None and int8_share(answer, facts) is None


def test_random_m_models_compute_and_have_a_tokenizer(tiny: Path) -> None:
    source = open_model(tiny)
    assert {t.qtype for t in source.tensors.values()} == {QType.F32, QType.Q4_0}
    logits = reference_logits(source, range(300, 340))
    assert 2 < logits.std() < 5 and len(set(logits.argmax(axis=1).tolist())) > 20
    tokenizer = Tokenizer.from_t_file(tiny.with_suffix(".t"))
    text = "The old stone: 12 rivers, é"
    ids = tokenizer.encode(text, add_special=True)
    assert ids[0] == tokenizer.vocab_size - 4 and len(ids) < len(text)
    assert tokenizer.decode(ids[1:]) == text
    program = Program("dllama", str(tiny), 1, [])
    for n in (2, 17, 300):
        assert n <= len(tokenizer.encode(program.prompt(n), add_special=True)) <= n + 2


def test_rates_are_read() -> None:
    assert read_rates(SAID) == Rates(5.57, 3.20)
    with pytest.raises(ValueError, match="no rates; it ended with: 'Critical error"):
        read_rates("Critical error: Cannot open file")
