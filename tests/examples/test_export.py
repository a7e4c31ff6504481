"""What export writes, dllama reads back: every weight in its place, and small enough to ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import ModelConfig
from dllama.formats import open_model
from dllama.models import model_shapes
from dllama.qtypes import QType
from dllama.tokenizer import Tokenizer
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import segments
from examples.demo_model.export import count_parameters, export_gguf
from examples.demo_model.tokenizer import tokenizer_metadata, train_tokenizer
from tests.references.forward import tensor_values

MAX_BYTES = 8_000_000
CONFIG = ModelConfig(
    arch="llama", name="dllama-demo", dim=64, hidden_dim=96, n_layers=2, n_heads=4, n_kv_heads=2,
    head_dim=16, vocab_size=0, max_seq_len=2048, norm_epsilon=1e-5, rope_theta=10000.0,
    is_tied=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def metadata() -> dict[str, object]:
    texts = (s.text for d in Writer(12).documents(8000) for s in segments(d))
    return tokenizer_metadata(train_tokenizer(texts))


def _random(config: ModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {n: rng.standard_normal(s, np.float32) for n, s in model_shapes(config).items()}


@pytest.mark.parametrize(("qtype", "tolerance"), [(QType.F16, 1e-3), (QType.Q8_0, 0.02)])
def test_every_weight_comes_back(
    qtype: QType, tolerance: float, tmp_path: Path, metadata: dict[str, object]
) -> None:
    n_tokens = _vocab_size(metadata)
    config = replace(CONFIG, vocab_size=n_tokens, tokenizer_size=n_tokens)
    written = _random(config)
    path = tmp_path / "m.gguf"
    export_gguf(path, config, written, metadata, qtype)
    source = open_model(path)
    try:
        assert replace(source.config, norm_epsilon=config.norm_epsilon) == config  # stored as f32
        for name, values in written.items():
            read = tensor_values(source, name)
            assert np.abs(read - values).max() <= tolerance * np.abs(values).max(), name
    finally:
        source.close()


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path, metadata: dict[str, object]) -> None:
    config = replace(CONFIG, vocab_size=_vocab_size(metadata))
    written = _random(config) | {"norm": np.ones((1, 3), np.float32)}
    with pytest.raises(ValueError, match="norm has the shape"):
        export_gguf(tmp_path / "m.gguf", config, written, metadata, QType.F16)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_shape_fits_its_size(tmp_path: Path, metadata: dict[str, object]) -> None:
    config = replace(
        CONFIG, dim=256, hidden_dim=768, n_layers=7, n_heads=8, n_kv_heads=4, head_dim=32,
        vocab_size=_vocab_size(metadata),
    )  # fmt: skip
    path = tmp_path / "m.gguf"
    export_gguf(path, config, _random(config), metadata, QType.Q8_0)
    assert path.stat().st_size <= MAX_BYTES
    assert 6e6 < count_parameters(config) < 7e6


def test_metadata_says_what_it_is(tmp_path: Path, metadata: dict[str, object]) -> None:
    config = replace(CONFIG, vocab_size=_vocab_size(metadata))
    export_gguf(tmp_path / "m.gguf", config, _random(config), metadata, QType.F16)
    source = open_model(tmp_path / "m.gguf")
    found = source.metadata  # type: ignore[attr-defined]
    assert found["general.name"] == "dllama-demo"
    assert found["general.license"] == "mit"
    tokenizer = Tokenizer.from_gguf_metadata(found)
    assert tokenizer.vocab_size == config.vocab_size
    assert len(tokenizer.eog_ids) == 2
    source.close()


def _vocab_size(metadata: dict[str, object]) -> int:
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    return len(tokens)
