"""What every WeightSource promises, over each format; then what is special to one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import QueryGrowth, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.formats.gguf_source import GgufSource, their_name
from dllama.formats.rope_order import RotaryPairs, half_split_order, interleaved_order
from dllama.formats.writing.gguf_export import config_metadata
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.models import FAMILIES, model_tensors
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo, WeightSource
from tests.cluster.array_source import small_config
from tests.dllama.formats.crafted import rewrite
from tests.references.forward import reference_logits, tensor_values
from tests.toy_models import LONGROPE, toy_tensor, write_toy

KINDS = [
    ("gguf", "llama", QType.Q4_0),
    ("gguf", "llama", QType.F32),
    ("gguf", "qwen2", QType.Q8_0),
    ("gguf", "qwen3", QType.BF16),
    ("gguf", "phi3", QType.Q4_0),
    ("m", "llama", QType.Q4_0),
    ("m", "llama", QType.F16),
    ("m", "qwen3", QType.Q8_0),
]


@pytest.fixture(
    scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{kind[1]}-{kind[2].name}"
)
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WeightSource:
    fmt, arch, qtype = request.param
    path = tmp_path_factory.mktemp("source") / "model"
    return open_model(write_toy(path, fmt=fmt, arch=arch, qtype=qtype, head_dim=32))


def test_every_tensor_is_read_whole_in_our_order(source: WeightSource) -> None:
    for name, info in source.tensors.items():
        raw = source.read(name)
        assert raw.dtype == np.uint8
        assert raw.shape == (info.rows, info.row_bytes)
        expected = toy_tensor(source.config, name, seed=0)
        coarse = {QType.Q4_0: 0.15, QType.Q8_0: 0.02, QType.BF16: 0.01, QType.F16: 0.01}
        tolerance = coarse.get(QType.Q4_0 if name == "embed" else info.qtype, 1e-7)
        assert (
            np.abs(tensor_values(source, name) - expected).max()
            <= tolerance * np.abs(expected).max()
        ), name


def test_a_cut_is_that_part_of_the_whole(source: WeightSource) -> None:
    for name in ("layers.0.wq", "layers.1.wk", "layers.1.wo", "layers.0.w2", "embed"):
        whole, info = source.read(name), source.tensors[name]
        per_block = info.row_bytes // (info.cols // 32)
        for rows in (range(5, 17), range(info.rows), range(3, 3), range(7, 8)):
            for cols in (range(info.cols), range(32, 64), range(32, 32)):
                cut = source.read(name, rows, cols)
                first, last = cols.start // 32 * per_block, cols.stop // 32 * per_block
                assert np.array_equal(cut, whole[rows.start : rows.stop, first:last])


def test_a_cut_that_does_not_fit_is_refused(source: WeightSource) -> None:
    with pytest.raises(ValueError, match="is no cut of the 160 rows of"):
        source.read("layers.0.w1", range(100, 161))
    with pytest.raises(ValueError, match="is no cut of"):
        source.read("layers.0.w1", range(0, 100, 2))
    with pytest.raises(ValueError, match="is no cut of"):
        source.read("layers.0.w1", None, range(-32, 32))
    if source.tensors["layers.0.w1"].qtype in {QType.Q4_0, QType.Q8_0}:
        with pytest.raises(ValueError, match="do not begin and end at blocks"):
            source.read("layers.0.w1", None, range(16, 64))


def test_rows_in_file_order_are_views(source: WeightSource) -> None:
    raw = source.read("layers.0.w1", range(8, 24), range(64))
    assert not raw.flags.owndata and not raw.flags.writeable


def test_a_released_tensor_can_be_read_again(source: WeightSource) -> None:
    before = {name: source.read(name).copy() for name in source.tensors}
    for name in source.tensors:
        source.release(name)
    assert all(np.array_equal(source.read(name), raw) for name, raw in before.items())


def test_a_closed_source_keeps_views_alive_and_gives_no_new_ones(tmp_path: Path) -> None:
    source = open_model(write_toy(tmp_path / "toy.gguf"))
    view = source.read("layers.0.w1")
    copy = view.copy()
    source.close()
    source.close()
    assert np.array_equal(view, copy)
    with pytest.raises(ModelFileError, match="closed"):
        source.read("layers.0.w1")
    assert isinstance(source, GgufSource)
    for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
        with pytest.raises(ModelFileError, match="closed"):
            source.metadata[key]


@pytest.mark.parametrize("arch", ["llama", "qwen3"])
@pytest.mark.parametrize("qtype", [QType.F32, QType.Q8_0, QType.Q4_0])
@pytest.mark.parametrize("tied", [False, True])
def test_both_formats_are_the_same_function(
    tmp_path: Path, arch: str, qtype: QType, tied: bool
) -> None:
    logits = [
        reference_logits(
            open_model(write_toy(tmp_path / fmt, fmt=fmt, arch=arch, qtype=qtype, tied=tied)),
            range(5, 25),
        )
        for fmt in ("gguf", "m")
    ]
    # GGUF holds norm_epsilon as float32, .m as an exponent: the only difference there is
    assert np.abs(logits[0] - logits[1]).max() < 1e-9
    assert logits[0].std() > 1


# GGUF


def test_llama_rows_are_permuted_as_the_converters_of_llama_cpp_do(tmp_path: Path) -> None:
    """HF's row p * hd/2 + j of a head becomes GGUF's row 2j + p; ours is HF's order."""
    source = open_model(write_toy(tmp_path / "toy", n_heads=4, n_kv_heads=2, head_dim=16))
    file = GgufFile(tmp_path / "toy")
    for name, heads in (("layers.1.wq", 4), ("layers.1.wk", 2)):
        ours = source.read(name).reshape(heads, 2, 8, -1)
        tensor = file.tensor(their_name(name, model_tensors(source.config)[name]))
        theirs = tensor.file.view(tensor.offset, tensor.n_bytes or 0, name)
        assert np.array_equal(ours.swapaxes(1, 2).reshape(-1), theirs)


def test_row_orders_undo_each_other() -> None:
    pairs = RotaryPairs(32, 32)
    order = half_split_order(range(96), pairs)
    assert sorted(order) == list(range(96))
    assert order[:3].tolist() == [0, 2, 4] and order[16:19].tolist() == [1, 3, 5]
    assert np.array_equal(interleaved_order(96, pairs)[order], np.arange(96))
    assert np.array_equal(half_split_order(range(40, 70), pairs), order[40:70])


def test_values_that_are_not_rotated_keep_their_rows() -> None:
    pairs = RotaryPairs(8, 4)
    assert half_split_order(range(16), pairs).tolist() == [
        0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15,
    ]  # fmt: skip
    order = half_split_order(range(16), pairs)
    assert np.array_equal(interleaved_order(16, pairs)[order], np.arange(16))


def test_config_says_what_was_written(tmp_path: Path) -> None:
    scaling = RopeScaling(RopeScalingKind.YARN, 4.0, 64, beta_fast=16.0, attention_factor=1.5)
    write_toy(
        tmp_path / "toy",
        arch="qwen3",
        dim=96,
        n_heads=3,
        n_kv_heads=1,
        head_dim=16,
        hidden_dim=172,
        vocab_size=300,
        rope_theta=1e6,
        rope_scaling=scaling,
        tied=True,
    )
    config = open_model(tmp_path / "toy").config
    sizes = (config.dim, config.n_heads, config.n_kv_heads, config.head_dim, config.hidden_dim)
    assert sizes == (96, 3, 1, 16, 172)
    assert (config.vocab_size, config.n_layers, config.max_seq_len) == (300, 2, 256)
    assert config.is_tied and config.has_qk_norm and not config.has_qkv_bias
    assert config.rope_theta == 1e6
    assert config.rope_scaling is not None
    assert config.rope_scaling.attention_factor == pytest.approx(1.5, rel=1e-6)
    assert replace(config.rope_scaling, attention_factor=1.5) == scaling


@pytest.mark.parametrize("kind", [k for k in RopeScalingKind if k is not RopeScalingKind.LONGROPE])
def test_rope_scaling_survives_the_file(tmp_path: Path, kind: RopeScalingKind) -> None:
    scaling = RopeScaling(kind, 8.0, 128, 1.0, 4.0)
    write_toy(tmp_path / "toy", rope_scaling=scaling)
    assert open_model(tmp_path / "toy").config.rope_scaling == scaling


def test_rope_factors_come_from_their_tensor(tmp_path: Path) -> None:
    factors = (1.0, 1.5, 2.0, 2.5, 8.0, 8.0, 8.0, 8.0)
    write_toy(tmp_path / "toy", rope_factors=factors)
    source = open_model(tmp_path / "toy")
    assert source.config.rope_factors == factors
    assert not any("rope" in name for name in source.tensors)


def test_longrope_is_two_tensors_and_a_magnitude(tmp_path: Path) -> None:
    config = open_model(write_toy(tmp_path / "toy", arch="phi3", **LONGROPE)).config  # type: ignore[arg-type]
    assert {key: getattr(config, key) for key in LONGROPE} == LONGROPE
    assert set(GgufFile(tmp_path / "toy").tensors) >= {
        "rope_factors_long.weight", "rope_factors_short.weight",
    }  # fmt: skip


def test_old_linear_scaling_key_is_read(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy")
    old = rewrite(toy, tmp_path / "old", metadata={"llama.rope.scale_linear": 2.0})
    scaling = open_model(old).config.rope_scaling
    assert scaling is not None
    assert (scaling.kind, scaling.factor) == (RopeScalingKind.LINEAR, 2.0)


def test_biases_of_a_llama_are_read_and_reordered(tmp_path: Path) -> None:
    """Llama files may carry biases too; theirs are permuted like the rows of their matrices."""
    toy = write_toy(tmp_path / "qwen", arch="qwen2")
    keys = {k: v for k, v in GgufFile(toy).metadata.items() if k.startswith("qwen2.")}
    llama = {k.replace("qwen2.", "llama."): v for k, v in keys.items()}
    path = rewrite(toy, tmp_path / "llama", metadata=llama | {"general.architecture": "llama"})
    qwen, llama_source = open_model(toy), open_model(path)
    assert llama_source.config.has_qkv_bias
    order = half_split_order(range(64), RotaryPairs(16, 16))
    expected = tensor_values(qwen, "layers.0.bq")[:, order]
    assert np.array_equal(tensor_values(llama_source, "layers.0.bq"), expected)
    cut = llama_source.read("layers.0.bq", None, range(16, 48)).view("<f4")
    assert np.array_equal(cut[0], expected[0, 16:48])


def test_alignment_of_the_file_is_honoured(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", qtype=QType.Q4_0)
    wide = rewrite(toy, tmp_path / "wide", metadata={"general.alignment": 4096})
    offsets = [tensor.offset for tensor in GgufFile(wide).tensors.values()]
    assert all(offset % 4096 == 0 for offset in offsets)
    tokens = [3, 4, 5]
    assert np.array_equal(
        reference_logits(open_model(wide), tokens), reference_logits(open_model(toy), tokens)
    )


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy")
    odd = rewrite(toy, tmp_path / "odd", metadata={"general.architecture": "mamba"})
    with pytest.raises(
        ModelFileError, match=r"'mamba': a model with states .* This version runs Llama 2 and 3"
    ) as found:
        open_model(odd)
    assert all(family.title in str(found.value) for family in FAMILIES.values())
    with pytest.raises(ModelFileError, match="names no architecture"):
        open_model(rewrite(toy, tmp_path / "none", drop=("general.architecture",)))


def test_queries_grow_in_few_families(tmp_path: Path) -> None:
    """YaRN's factor is 1 there, as its logarithm's multiplier says."""
    scaling = RopeScaling(RopeScalingKind.YARN, 8.0, 32)
    toy = write_toy(tmp_path / "toy", arch="mistral3", rope_scaling=scaling)
    said = {"attention.temperature_scale": 0.25, "rope.scaling.yarn_log_multiplier": 1.0}
    named = {f"mistral3.{key}": value for key, value in said.items()}
    config = open_model(rewrite(toy, tmp_path / "grown", metadata=named)).config
    assert config.query_growth == QueryGrowth(0.25, 32, first=0, is_everywhere=True)
    assert config.rope_scaling == replace(scaling, attention_factor=1.0)
    other = {"llama.attention.temperature_scale": 0.25}
    with pytest.raises(ModelFileError, match=r"attention.temperature_scale is 0.25"):
        open_model(rewrite(write_toy(tmp_path / "llama"), tmp_path / "b", metadata=other))


REFUSED = [
    ({"llama.expert_count": 8}, "lacks llama.expert_used_count"),
    ({"llama.expert_count": 2, "llama.expert_used_count": 3}, "takes 3 of 2 experts"),
    (
        {"llama.expert_count": 2, "llama.expert_used_count": 1, "llama.expert_gating_func": 9},
        "expert_gating_func is 9, a way to weigh experts",
    ),
    ({"llama.attention.scale": 0.1}, "attention.scale"),
    ({"llama.attention.value_length": 8}, "keys have 16 values a head and values 8"),
    ({"llama.rope.dimension_count": 18}, "rotary embedding covers 18 of the 16"),
    ({"llama.rope.dimension_count": 7}, "rotary embedding covers 7 of the 16"),
    ({"llama.rope.scaling.type": "longrope"}, "factors .longrope., which the file lacks"),
    ({"llama.rope.scaling.type": "su", "llama.rope.scaling.factor": 4.0}, "in the way 'su'"),
    ({"llama.attention.head_count_kv": 3}, "4 heads cannot share 3"),
    ({"llama.attention.head_count_kv": np.array([2, 4], np.int32)}, "a whole number"),
    ({"llama.embedding_length": 96}, r"token_embd.weight has 352 rows of 64 values; .* of 96"),
    ({"llama.feed_forward_length": 161}, "blk.0.ffn_gate.weight has 160 rows"),
    ({"llama.block_count": 1}, r"'blk.1.attn_norm.weight' belongs to nothing"),
    ({"llama.block_count": 3}, r"no tensor 'blk.2.attn_norm.weight'"),
    ({"llama.block_count": 2**31 - 1}, "promises 2147483647 layers"),
    ({"llama.block_count": 0}, "llama.block_count is 0; expected a whole number"),
    ({"llama.context_length": "long"}, "llama.context_length is 'long'"),
    ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon is nan"),
    ({"llama.rope.freq_base": 1.0}, "freq_base is 1.0; it must be above 1"),
]


@pytest.mark.parametrize(("metadata", "sentence"), REFUSED)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, metadata: dict[str, object], sentence: str
) -> None:
    bad = rewrite(write_toy(tmp_path / "toy"), tmp_path / "bad", metadata=metadata)
    with pytest.raises(ModelFileError, match=sentence):
        open_model(bad)


def test_experts_in_tensors_of_their_own_are_refused(tmp_path: Path) -> None:
    """As files of early 2024 have them."""
    path = tmp_path / "old"
    names = ["token_embd.weight", "blk.0.ffn_gate.0.weight"]
    tensors = [TensorInfo(name, QType.F32, 352, 64) for name in names]
    metadata = config_metadata(small_config(vocab_size=352), QType.F32)
    with gguf_stream(path, metadata, tensors) as out:
        for info in tensors:
            out.write(np.zeros((352, info.row_bytes), np.uint8))
    with pytest.raises(ModelFileError, match="is the matrix of a single expert"):
        open_model(path)


@pytest.mark.parametrize("key", ["llama.block_count", "llama.attention.head_count"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    bad = rewrite(write_toy(tmp_path / "toy"), tmp_path / "bad", drop=(key,))
    with pytest.raises(ModelFileError, match=f"lacks {key}"):
        open_model(bad)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    bad = rewrite(write_toy(tmp_path / "toy"), tmp_path / "bad", drop=("blk.1.ffn_up.weight",))
    with pytest.raises(ModelFileError, match=r"no tensor 'blk\.1\.ffn_up\.weight'"):
        open_model(bad)


def test_a_tensor_that_nobody_would_use_is_refused(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", arch="qwen2")
    bad = rewrite(toy, tmp_path / "bad", rename={"blk.0.attn_q.bias": "blk.0.attn_output.bias"})
    with pytest.raises(ModelFileError, match=r"'blk\.0\.attn_output\.bias' belongs to nothing"):
        open_model(bad)


def test_an_unknown_tensor_type_names_type_and_tensor(tmp_path: Path) -> None:
    def as_q6_k(info: TensorInfo) -> TensorInfo:
        is_head = info.name == "output.weight"
        return replace(info, qtype=QType.Q8_K) if is_head else info

    toy = write_toy(tmp_path / "toy", dim=256, hidden_dim=256, n_layers=1)
    bad = rewrite(toy, tmp_path / "bad", reshape=as_q6_k)
    with pytest.raises(UnknownTensorType, match=r"output\.weight is stored as Q8_K") as caught:
        open_model(bad)
    assert (caught.value.tensor, caught.value.qtype) == ("output.weight", "Q8_K")
    assert GgufFile(bad).tensor("output.weight").type_name == "Q8_K"


def test_a_metadata_mapping_comes_with_the_source(tmp_path: Path) -> None:
    source = open_model(write_toy(tmp_path / "toy", tokenizer="spm"))
    assert isinstance(source, GgufSource)
    metadata = source.metadata
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    assert isinstance(tokens, list) and isinstance(scores, np.ndarray)
    assert len(tokens) == len(scores) == len(set(tokens)) == source.config.vocab_size
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"  # type: ignore[call-overload]
    assert "<|im_start|>" in str(metadata["tokenizer.chat_template"])
