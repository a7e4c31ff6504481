"""--draft-model: what is loaded beside the model, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllama.cli.build import build_draft_model, build_engine
from dllama.cli.flags.settings import DEFAULT_DRAFT, MAX_SPECULATE, EngineSettings
from dllama.cli.model_file import check_same_vocabulary
from dllama.engine.speculative import model_drafter, speculation
from dllama.errors import ConfigError, ModelFileError
from dllama.requests import SamplingParams, Submit
from tests.dllama.cli.test_commands import dllama
from tests.dllama.engine.days import drain
from tests.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same vocabulary, with half the context."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    return write_toy(path, dim=32, hidden_dim=64, n_layers=1, max_seq_len=128, seed=1)


def settings(model: Path, **named: object) -> EngineSettings:
    return EngineSettings(model=str(model), threads=1, **named)  # type: ignore[arg-type]


def test_the_server_knows_the_engine_s_limits() -> None:
    assert DEFAULT_DRAFT == model_drafter.DEFAULT_DRAFT and MAX_SPECULATE == speculation.MAX_FORCED


@pytest.mark.parametrize(("draft", "is_alike"), [("toy", True), ("small", False)])
def test_answers_are_the_same(toy: Path, small: Path, draft: str, is_alike: bool) -> None:
    submit = Submit("a", [7, 8, 9] * 4, SamplingParams(temperature=0.0), max_tokens=60)
    submit = replace(submit, draft_p_min=0.01)
    found = []
    for path in (None, str(toy if draft == "toy" else small)):
        chosen = settings(toy, speculate=6 if path else 0, draft_model=path, draft_max=5)
        engine = build_engine(chosen, lambda share, detail: None)
        engine.submit(submit)
        found.append(drain(engine).answer("a"))
        report = engine.stats()["speculation"]
        engine.close()
    assert found[0] == found[1]
    assert isinstance(report, dict)
    assert report["drafted"] > 0 and (report["accepted"] > 40) == is_alike


def test_it_is_loaded_with_the_smaller_context(toy: Path, small: Path) -> None:
    told: list[str] = []
    chosen = settings(toy, draft_model=str(small), draft_max=3, workers=("nobody:1",))
    model = build_draft_model(chosen, lambda share, detail: told.append(detail))
    assert model is not None and model.max_tokens == 3
    assert model.runner.config.max_seq_len == 128 and model.kv.pool.n_pages == 16
    assert told and all(line.startswith("draft model: ") for line in told)
    model.close()
    assert build_draft_model(settings(toy), lambda share, detail: None) is None


def test_another_vocabulary_is_refused(toy: Path, tmp_path: Path) -> None:
    larger = write_toy(tmp_path / "larger.gguf", vocab_size=360)
    other = write_toy(tmp_path / "other.gguf", tokenizer="spm")
    check_same_vocabulary(str(toy), None, str(toy))
    with pytest.raises(ConfigError, match=r"other\.gguf has another vocabulary than toy\.gguf"):
        check_same_vocabulary(str(toy), None, str(other))
    with pytest.raises(ConfigError, match="token 348 is"):
        build_engine(settings(toy, draft_model=str(larger)), lambda share, detail: None)
    with pytest.raises(ModelFileError, match="no file at"):
        build_engine(settings(toy, draft_model="/nowhere.gguf"), lambda share, detail: None)


def test_the_command_takes_it(toy: Path) -> None:
    words = ("run", "-m", toy, "--raw", "--temperature", 0, "-n", 20)
    plain = dllama(*words, "hello")
    flags = ("--draft-model", toy, "--draft-max", 4, "--speculate", 8, "--tokenizer", toy)
    guessed = dllama(*words, *flags, "hello")
    assert plain.returncode == guessed.returncode == 0, guessed.stderr
    assert plain.stdout == guessed.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--speculate", "off"), "--speculate off allows no guesses"),
        (("--draft-max", "33"), "no number of tokens from 1 to 32"),
    ],
)
def test_mistakes_get_a_sentence(toy: Path, words: tuple[str, ...], said: str) -> None:
    run = dllama("run", "-m", toy, "--draft-model", toy, *words, "hi")
    assert run.returncode in (1, 2) and said in " ".join(run.stderr.split())
