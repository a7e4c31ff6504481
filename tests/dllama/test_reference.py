"""The reference forward itself: a real model's text, and properties any right one has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from dllama.config import RopeScaling, RopeScalingKind
from dllama.formats import open_model
from dllama.formats.gguf_source import GgufSource
from dllama.qtypes import QType
from tests.references.forward import reference_greedy, reference_logits
from tests.shared_data import shared_file
from tests.toy_models import write_toy

STORY = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she "
    "saw a big, red ball. She wanted to play with it, but it was too high."
)

GOLDEN = [
    248,
    14,
    120,
    45,
    106,
    2,
    45,
    112,
    53,
    212,
    132,
    349,
    311,
    349,
    2,
    311,
    219,
    22,
    326,
    211,
    351,
    159,
    17,
    303,
]


def test_a_real_model_tells_its_story() -> None:
    source = open_model(shared_file("models/stories260K.gguf"))
    assert isinstance(source, GgufSource)
    tokens = source.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    prompt = [1, *(tokens.index(piece) for piece in ("▁Once", "▁upon", "▁a", "▁time"))]
    answer = reference_greedy(source, prompt, 60)
    assert "".join(tokens[i] for i in answer).replace("▁", " ").startswith(STORY)


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
def test_a_token_changes_nothing_before_it(tmp_path: Path, arch: str) -> None:
    source = open_model(write_toy(tmp_path / "toy", arch=arch))
    a = reference_logits(source, [5, 6, 7, 8, 9])
    b = reference_logits(source, [5, 6, 7, 99, 9])
    np.testing.assert_allclose(a[:3], b[:3], atol=1e-12)
    assert np.abs(a[3:] - b[3:]).max() > 0.1


@pytest.mark.parametrize("change", ["scaling", "factors", "bias", "norm", "seed", "quantized"])
def test_everything_a_toy_may_have_shows_in_its_logits(tmp_path: Path, change: str) -> None:
    scaling = RopeScaling(RopeScalingKind.LINEAR, 4.0, 64)
    other: dict[str, object] = {
        "scaling": {"rope_scaling": scaling},
        "factors": {"rope_factors": (2.0,) * 8},
        "bias": {"arch": "qwen2"},
        "norm": {"arch": "qwen3"},
        "seed": {"seed": 1},
        "quantized": {"qtype": QType.Q4_0},
    }[change]  # type: ignore[assignment]
    tokens = list(range(20, 40))
    plain = reference_logits(open_model(write_toy(tmp_path / "a")), tokens)
    changed = reference_logits(open_model(write_toy(tmp_path / "b", **other)), tokens)  # type: ignore[arg-type]
    assert np.abs(plain - changed)[1:].max() > 0.05


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_toys_have_something_to_say(tmp_path: Path, arch: str, tied: bool) -> None:
    logits = reference_logits(
        open_model(write_toy(tmp_path / "toy", arch=arch, tied=tied, n_layers=4)), range(50, 90)
    )
    assert np.isfinite(logits).all()
    assert 1 < logits.std() < 6
    assert len(set(logits.argmax(axis=1).tolist())) > 10


@pytest.mark.parametrize("fmt", ["gguf", "m"])
def test_the_toy_of_seed_0_says_the_same_for_ever(
    tmp_path: Path, fmt: Literal["gguf", "m"]
) -> None:
    source = open_model(write_toy(tmp_path / "toy", fmt=fmt))
    assert reference_greedy(source, [256, 70, 80], 24) == GOLDEN
