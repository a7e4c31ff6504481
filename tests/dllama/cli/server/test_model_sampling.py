"""What a model file recommends counts where neither a request nor a flag says anything."""

from __future__ import annotations

from dllama.cli.server.model_sampling import model_sampling
from dllama.requests import SamplingParams


def test_what_a_file_recommends() -> None:
    found = model_sampling(
        {
            "general.sampling.temp": 0.6, "general.sampling.top_k": 20,
            "general.sampling.penalty_repeat": 1.1, "general.sampling.penalty_last_n": 128,
            "general.sampling.sequence": "top_k;top_p;temperature", "general.name": "x",
        }
    )  # fmt: skip
    assert found == SamplingParams(
        temperature=0.6, top_k=20, repeat_penalty=1.1, repeat_last_n=128,
        samplers=("top_k", "top_p", "temperature"),
    )  # fmt: skip
    assert model_sampling({}) == SamplingParams()


def test_what_a_file_says_wrongly_is_left_out(caplog) -> None:
    found = model_sampling(
        {
            "general.sampling.temp": "hot", "general.sampling.top_p": 7.0,
            "general.sampling.sequence": "magic", "general.sampling.min_p": 0.1,
        }
    )  # fmt: skip
    assert found == SamplingParams(top_p=1.0, min_p=0.1)  # as requests: what is near is meant
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
