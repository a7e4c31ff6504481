"""Float weights that are quantized as they are read."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllama.errors import ConfigError
from dllama.formats import open_model
from dllama.formats.quantized import QuantizedSource, type_named
from dllama.formats.writing.encode import ENCODABLE, encode
from dllama.qtypes import QType
from dllama.sharding.pieces import Piece, read_piece, whole_model
from dllama.weight_source import WeightSource
from tests.checkpoints import write_checkpoint
from tests.local_model import local_runner, make_step
from tests.toy_models import toy_tensor, write_toy

TOKENS = list(range(5, 45))


@pytest.mark.parametrize("qtype", [QType.Q4_0, QType.Q8_0, QType.Q5_1])
def test_every_cut_is_that_part_of_the_whole_matrix_quantized(tmp_path: Path, qtype: QType) -> None:
    folder = write_checkpoint(tmp_path / "toy", qtype=QType.BF16)
    with closing(QuantizedSource(open_model(folder), qtype)) as source:
        name = "layers.1.w2"
        values = toy_tensor(source.config, name, 0)
        rounded = gguf.dequantize(
            encode(values, QType.BF16), gguf.GGMLQuantizationType.BF16
        ).astype(np.float32)
        whole = encode(rounded, qtype)
        info = source.tensors[name]
        assert info.qtype is qtype and whole.shape == (info.rows, info.row_bytes)
        assert np.array_equal(source.read(name), whole)
        block = info.row_bytes // 5
        for rows in (range(5, 17), range(64), range(3, 3)):
            cut = source.read(name, rows, range(32, 96))
            assert np.array_equal(cut, whole[rows.start : rows.stop, block : 3 * block])
        with pytest.raises(ValueError, match="do not begin and end at blocks"):
            source.read(name, None, range(16, 64))


def test_what_is_no_float_matrix_stays(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="qwen2", qtype=QType.Q8_0, hidden_dim=172)
    with closing(QuantizedSource(open_model(toy), QType.Q4_0)) as source:
        types = {info.short_name: info.qtype for info in source.tensors.values()}
        plain = open_model(toy)
        assert types == {info.short_name: info.qtype for info in plain.tensors.values()}
        assert (types["w1"], types["norm1"], types["bq"]) == (QType.Q8_0, QType.F32, QType.F32)
        assert types["w2"] is QType.F16, "172 columns are no blocks"
        assert np.array_equal(source.read("layers.0.w1"), plain.read("layers.0.w1"))


def test_the_embedding_and_the_head_keep_eight_bits(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy")
    with closing(QuantizedSource(open_model(folder), QType.Q4_0)) as source:
        types = {info.short_name: info.qtype for info in source.tensors.values()}
        assert (types["embed"], types["wcls"], types["wq"]) == (
            QType.Q8_0, QType.Q8_0, QType.Q4_0,
        )  # fmt: skip
        assert source.stamp == open_model(folder).stamp + "\nas Q4_0 1"
    with closing(QuantizedSource(open_model(folder), QType.BF16)) as source:
        assert {t.qtype for t in source.tensors.values() if t.rows > 1} == {QType.BF16}


def test_a_model_quantized_at_load_answers_like_the_file_of_that_type(tmp_path: Path) -> None:
    """The same blocks, so the same bits."""
    file = write_toy(tmp_path / "toy.gguf", qtype=QType.Q8_0, hidden_dim=160)
    folder = write_checkpoint(tmp_path / "toy")
    found = []
    for path, quantize in ((file, None), (folder, "q8_0")):
        with local_runner(path, quantize=quantize) as runner:
            rows = runner.run(make_step([(0, TOKENS, 0)], every_row=True))
            found.append([row.logits for row in rows])
    assert np.array_equal(np.array(found[0]), np.array(found[1]))


def test_a_type_that_floats_cannot_be_made_into_is_refused() -> None:
    assert {type_named(qtype.name) for qtype in ENCODABLE} == set(ENCODABLE)
    with pytest.raises(ConfigError, match="cannot be made into 'iq2_s'; the types are f32, f16"):
        type_named("iq2_s")


class Counted:
    """A source that counts what is read of it."""

    def __init__(self, source: WeightSource) -> None:
        self._source, self.config, self.tensors = source, source.config, source.tensors
        self.stamp, self.release, self.close = source.stamp, source.release, source.close
        self.drop_kept = source.drop_kept
        self.read_bytes: Counter[str] = Counter()

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        raw = self._source.read(name, rows, cols)
        self.read_bytes[name] += raw.nbytes
        return raw


def read_all(source: WeightSource) -> dict[Piece, bytes]:
    """All pieces that any rank may ask for, as they are hashed and sent."""
    found = {}
    for tiled in whole_model(source.config, source.tensors):
        for sized in tiled.sized():
            found[sized.piece] = read_piece(source, sized).tobytes()
        source.release(tiled.cut.source_name)
    return found


@pytest.mark.parametrize("arch", ["llama", "qwen3moe"])
def test_what_several_ranks_read_is_made_once(
    tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as it has room; of several experts always one tensor at a time."""
    monkeypatch.setattr("dllama.sharding.pieces.WHOLE_BYTES", 0)
    monkeypatch.setattr("dllama.sharding.pieces.HIDDEN_UNIT", 64)
    path = write_toy(tmp_path / "toy.gguf", arch=arch, qtype=QType.F16, dim=256, hidden_dim=256)
    found, counts = [], []
    for keeps_bytes in (0, 300_000, 1 << 30):
        counted = Counted(open_model(path))
        with closing(QuantizedSource(counted, QType.Q4_K, keeps_bytes)) as source:
            found += [read_all(source) for _ in range(2)]
            counts.append(dict(counted.read_bytes))
            source.drop_kept()
            found.append(read_all(source))
            assert counted.read_bytes["layers.0.wq"] > counts[-1]["layers.0.wq"]
    assert all(pieces == found[0] for pieces in found)
    none, some, all_ = (
        [count[name] / info.n_bytes for name, info in counted.tensors.items() if
         info.rows > 1 and name not in ("embed", "layers.0.router", "layers.1.router")]
        for count in counts
    )  # fmt: skip
    assert set(none) == {2} and set(all_) == {1} and set(some) == {1, 2}
