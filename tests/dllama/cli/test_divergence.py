"""`dllama perplexity --kl-divergence`: the base on one machine, the comparison on two workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama.qtypes import QType
from tests.dllama.cli.test_commands import dllama
from tests.programs import workers
from tests.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy.gguf"
    return write_toy(path, qtype=QType.Q8_0, n_kv_heads=4)


def test_a_cluster_has_the_probabilities_of_one_machine(toy: Path, tmp_path: Path) -> None:
    """The same bits, but for what the file of the base rounds."""
    base, text = tmp_path / "base.kld", tmp_path / "text"
    text.write_text("a b c hello " * 40)
    words = ("perplexity", "-m", toy, "-t", 1, "--json", "--kl-divergence-base", base)
    alone = dllama(*words, "-f", text, "-c", 32, "--windows", 2)
    assert alone.returncode == 0, alone.stderr
    with workers(tmp_path, 2) as addresses:
        joined = ",".join(addresses)
        done = dllama(*words, "--kl-divergence", "--workers", joined, "--shares", "equal")
    assert done.returncode == 0, done.stderr
    assert "window 2 of 2" in done.stderr
    found = json.loads(done.stdout)
    assert found["perplexity"]["value"] == pytest.approx(json.loads(alone.stdout)["perplexity"])
    assert (found["n_tokens"], found["same_top"]["value"]) == (30, 1)
    assert abs(found["divergence"]["value"]) < 1e-5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kl-divergence",), "name it with --kl-divergence-base"),
        ((), "there is no text to read; name one with -f"),
        (("--kl-divergence", "--kl-divergence-base", "TOY"), "holds no probabilities"),
    ],
)
def test_what_cannot_be_compared_is_said(toy: Path, words: tuple[str, ...], said: str) -> None:
    done = dllama("perplexity", "-m", toy, *(str(toy) if w == "TOY" else w for w in words))
    assert done.returncode == 1 and said in " ".join(done.stderr.split())
