"""A model with more rows than its tokenizer has tokens, as those of Qwen: rows without a token are
never drawn and never told."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.random_m_model import tokenizer_of
from dllama.cli.build import build_engine
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import open_source
from dllama.engine.engine import Engine
from dllama.errors import ConfigError
from dllama.requests import FinishReason, Output, SamplingParams, Submit
from dllama.tokenizer.t_file import write_t_file
from tests.toy_models import write_toy

N_ROWS, N_TOKENS, N_DRAWN = 1000, 300, 60  # seven of ten rows are padding

SAMPLINGS = {
    "greedy": SamplingParams(temperature=0.0),
    "defaults": SamplingParams(temperature=1.0),
    "every token": SamplingParams(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0),
    "few": SamplingParams(temperature=2.0, top_k=3),
    "penalties": SamplingParams(temperature=1.0, repeat_penalty=1.5, presence_penalty=1.0),
    "bias": SamplingParams(temperature=1.0, logit_bias={7: -math.inf, 299: 3.0}),
    "mirostat": SamplingParams(temperature=1.5, mirostat=2),
    "mirostat 1": SamplingParams(temperature=1.5, mirostat=1),
    "typical": SamplingParams(temperature=1.5, top_k=0, typical_p=0.5),
    "xtc": SamplingParams(temperature=1.5, xtc_probability=0.9, xtc_threshold=0.01),
}


def settings(model: Path, **named: object) -> EngineSettings:
    return EngineSettings(model=str(model), threads=1, **named)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["own", "beside", "named"])
def padded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> EngineSettings:
    """The settings of such a model, with its tokenizer in the file, beside it, or elsewhere."""
    folder = tmp_path_factory.mktemp("padded")
    if request.param == "own":
        return settings(write_toy(folder / "a.gguf", vocab_size=N_ROWS, n_tokens=N_TOKENS))
    if request.param == "named":
        other = write_toy(folder / "small.gguf", vocab_size=N_TOKENS)
        return settings(write_toy(folder / "a.gguf", vocab_size=N_ROWS), tokenizer=str(other))
    path = write_toy(folder / "a.m", fmt="m", vocab_size=N_ROWS)
    write_t_file(path.with_suffix(".t"), tokenizer_of(N_TOKENS))
    return settings(path)


def outputs(engine: Engine, submit: Submit) -> list[Output]:
    engine.submit(submit)
    found: list[Output] = []
    while engine.has_work():
        found += engine.step()
    assert found[-1].error is None and found[-1].finish is FinishReason.LENGTH
    return found


def test_no_sampler_draws_a_row_of_padding(padded: EngineSettings) -> None:
    engine = build_engine(padded, lambda share, detail: None)
    for name, sampling in SAMPLINGS.items():
        submit = Submit(name, [3, 4, 5], replace(sampling, n_probs=20, seed=1), max_tokens=N_DRAWN)
        found = outputs(engine, submit)
        tokens = [token for output in found for token in output.tokens]
        probs = [one for output in found for one in output.probs or ()]
        assert len(tokens) == len(probs) == N_DRAWN
        assert max(tokens) < N_TOKENS, name
        assert all(max(one.top_ids) < N_TOKENS and len(one.top_ids) == 20 for one in probs), name
    engine.close()


def test_the_probabilities_of_all_tokens_add_up_to_one(padded: EngineSettings) -> None:
    engine = build_engine(padded, lambda share, detail: None)
    for is_post in (False, True):
        sampling = SamplingParams(
            temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, n_probs=900, post_sampling_probs=is_post
        )
        [probs] = outputs(engine, Submit("a", [3, 4, 5], sampling, max_tokens=1))[-1].probs or []
        assert sorted(probs.top_ids) == list(range(N_TOKENS))
        values = probs.top_values if is_post else [math.exp(value) for value in probs.top_values]
        assert sum(values) == pytest.approx(1.0, abs=1e-4)
    engine.close()


def test_no_draft_names_a_row_of_padding(padded: EngineSettings) -> None:
    """The model drafts for itself, so that all that it drafts is accepted."""
    plain = build_engine(replace(padded, speculate=0), lambda share, detail: None)
    drafts = replace(padded, speculate=6, draft_model=padded.model)
    if padded.tokenizer is None:
        drafting = build_engine(drafts, lambda share, detail: None)
        submit = Submit(
            "a", [3, 4, 5], SamplingParams(temperature=0.0), max_tokens=40, draft_p_min=0.001
        )
        found, told = outputs(plain, submit), outputs(drafting, submit)
        tokens = [token for output in told for token in output.tokens]
        assert tokens == [token for output in found for token in output.tokens]
        assert max(tokens) < N_TOKENS and sum(output.n_accepted for output in told) > 20
        drafting.close()
    plain.close()


def test_a_grammar_draws_no_row_of_padding(padded: EngineSettings) -> None:
    engine = build_engine(padded, lambda share, detail: None, with_grammars=True)
    sampling = SamplingParams(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0)
    submit = Submit("a", [3, 4, 5], sampling, max_tokens=30, grammar="start: /[a-z ]{100,}/")
    tokens = [token for output in outputs(engine, submit) for token in output.tokens]
    assert len(tokens) == 30 and max(tokens) < N_TOKENS
    engine.close()


def test_a_prompt_that_names_a_row_of_padding_is_refused(padded: EngineSettings) -> None:
    engine = build_engine(padded, lambda share, detail: None)
    engine.submit(Submit("a", [3, N_TOKENS], SamplingParams(), max_tokens=1))
    [output] = engine.step()
    assert output.finish is FinishReason.ERROR and f"0 to {N_TOKENS - 1}" in (output.error or "")
    engine.close()


def test_a_tokenizer_that_is_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "a.gguf", vocab_size=300, n_tokens=352)
    other = write_toy(tmp_path / "b.gguf", vocab_size=300)
    beside = write_toy(tmp_path / "c.m", fmt="m", vocab_size=300)
    write_t_file(beside.with_suffix(".t"), tokenizer_of(352))
    for chosen in (settings(model), settings(other, tokenizer=str(model)), settings(beside)):
        with pytest.raises(ConfigError, match="has 352 tokens, but the model only knows 300"):
            build_engine(chosen, lambda share, detail: None)
    source = open_source(settings(model, tokenizer=str(other)))
    assert source.config.n_tokens == 300, "another tokenizer helps"
    source.close()


def test_a_model_without_a_tokenizer_has_a_token_for_each_row(tmp_path: Path) -> None:
    source = open_source(settings(write_toy(tmp_path / "a.m", fmt="m", vocab_size=400)))
    assert source.config.n_tokens == 400
    source.close()
