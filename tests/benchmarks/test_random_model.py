"""Random models are valid ones: they open, compute, and the gguf library reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from benchmarks.random_model import SHAPES, main, write_random
from dllama.formats import open_model
from dllama.formats.gguf_source import GgufSource
from dllama.qtypes import QType
from dllama.rope import rope_frequencies
from tests.references.forward import reference_logits, tensor_values


@pytest.mark.parametrize("qtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "MXFP4", "NVFP4", "IQ1_M"])
def test_tiny_models_compute_in_every_type(
    tmp_path: Path, qtype: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.gguf"
    assert main(["tiny", str(path), "--type", qtype]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "tiny.gguf" in captured.err
    source = open_model(path)
    assert source.config.name == f"random-tiny-{qtype}"
    assert {t.qtype.name for t in source.tensors.values()} == {"F32", qtype}
    logits = reference_logits(source, range(300, 340))
    assert 2 < logits.std() < 5
    assert len(set(logits.argmax(axis=1).tolist())) > 20
    for name in ("embed", "layers.2.w2", "layers.0.wq"):
        values = tensor_values(source, name)
        assert abs(values.mean()) < 0.02 * values.std()


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_shape_opens_as_it_was_asked_for(tmp_path: Path, name: str) -> None:
    """All widths, with a layer of each kind and a small vocabulary so that it takes no time."""
    whole = SHAPES[name]
    n_layers = 1 + whole.n_dense_layers
    shape = replace(
        whole, n_layers=n_layers, vocab_size=512, hidden_dim=256,
        shared_hidden_dim=256 * whole.shared_ratio,
        attention_layers=whole.attention_layers[:n_layers],
    )  # fmt: skip
    write_random(tmp_path / "m.gguf", shape, QType.Q4_0, embed_qtype=QType.Q8_0)
    source = open_model(tmp_path / "m.gguf")
    found = source.config
    expected = replace(
        shape,
        rope_scaling=None if found.rope_factors else shape.rope_scaling,
        rope_factors=found.rope_factors,
        norm_epsilon=found.norm_epsilon,
        attention_scale=found.attention_scale,
        tokenizer_size=512,
    )
    assert found == expected
    assert found.norm_epsilon == pytest.approx(shape.norm_epsilon)
    assert found.attention_scale == pytest.approx(shape.attention_scale)
    np.testing.assert_allclose(rope_frequencies(found)[0], rope_frequencies(shape)[0], rtol=1e-6)
    assert source.tensors["embed"].qtype is QType.Q8_0


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_random(tmp_path / name, SHAPES["tiny"], QType.Q8_0, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b and a != c


def test_the_gguf_library_finds_the_keys_that_llama_cpp_needs(tmp_path: Path) -> None:
    write_random(tmp_path / "m", SHAPES["tiny"], QType.Q4_0)
    fields = gguf.GGUFReader(tmp_path / "m").fields
    values = {key: field.contents() for key, field in fields.items()}
    assert values["general.architecture"] == "llama"
    for key, expected in {
        "block_count": 4,
        "context_length": 4096,
        "embedding_length": 256,
        "feed_forward_length": 768,
        "attention.head_count": 8,
        "attention.head_count_kv": 4,
        "rope.dimension_count": 32,
        "vocab_size": 2048,
    }.items():
        assert values[f"llama.{key}"] == expected
    assert values["tokenizer.ggml.model"] == "gpt2" and values["tokenizer.ggml.pre"] == "llama-bpe"
    assert len(values["tokenizer.ggml.tokens"]) == len(values["tokenizer.ggml.token_type"]) == 2048


def test_its_tokenizer_spells_any_text(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    write_random(tmp_path / "m", SHAPES["tiny"], QType.Q4_0)
    source = open_model(tmp_path / "m")
    assert isinstance(source, GgufSource)
    tokens, merges = (source.metadata[f"tokenizer.ggml.{k}"] for k in ("tokens", "merges"))
    assert isinstance(tokens, list) and isinstance(merges, list)
    model = tokenizers.models.BPE(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ")) for merge in merges],
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    text = "The weather in Zürich is fine today, 日本 too!\n"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode()) * 0.8
