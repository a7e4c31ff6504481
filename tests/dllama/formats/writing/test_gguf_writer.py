"""What the writers write, as the gguf library reads it; and what they leave behind on failure."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

METADATA = {
    "general.architecture": "llama",
    "a.int": 7,
    "a.negative": -7,
    "a.long": 2**40,
    "a.float": 0.5,
    "a.flag": True,
    "a.double": np.float64(0.1),
    "a.texts": ["x", "", "ü"],
    "a.list": [3, -1, 0],
    "a.long-list": [2**40, -1],
    "a.fractions": [0.5, 2.0],
    "a.truths": [True, False],
    "a.numbers": np.array([1.5, -2.5], np.float32),
    "a.flags": np.array([True, False]),
}
TENSORS = [
    TensorInfo("matrix", QType.Q8_0, 3, 64),
    TensorInfo("vector", QType.F32, 1, 5),
    TensorInfo("half", QType.F16, 2, 3),
]


def blocks(info: TensorInfo) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 99, (info.rows, info.row_bytes)).astype(np.uint8)


@pytest.mark.parametrize("alignment", [32, 256])
def test_the_gguf_library_reads_what_is_written(tmp_path: Path, alignment: int) -> None:
    path = tmp_path / "out.gguf"
    metadata = METADATA | {"general.alignment": alignment}
    with gguf_stream(path, metadata, TENSORS) as out:
        for info in TENSORS:
            for row in blocks(info):  # in pieces
                out.write(row)
    reader = gguf.GGUFReader(path)
    for key, value in metadata.items():
        field = reader.fields[key].contents()
        assert field == (value.tolist() if isinstance(value, np.ndarray) else value), key
    for theirs, info in zip(reader.tensors, TENSORS, strict=True):
        assert (theirs.name, int(theirs.tensor_type)) == (info.name, info.qtype)
        assert theirs.data_offset % alignment == 0
        assert np.asarray(theirs.data).tobytes() == blocks(info).tobytes()
    assert reader.tensors[0].shape.tolist() == [64, 3]
    assert reader.tensors[1].shape.tolist() == [5]


def test_an_unfinished_file_never_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "out.gguf"
    with (
        pytest.raises(ValueError, match="204 bytes left of matrix"),
        gguf_stream(path, METADATA, TENSORS),
    ):
        pass
    with pytest.raises(KeyboardInterrupt), gguf_stream(path, METADATA, TENSORS) as out:
        out.write(blocks(TENSORS[0]))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_piece_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="205 bytes are more than the 204 bytes left of matrix"),
        gguf_stream(tmp_path / "out.gguf", METADATA, TENSORS) as out,
    ):
        out.write(np.zeros(205, np.uint8))


@pytest.mark.parametrize("value", [None, 2**64, {"a": 1}])
def test_a_value_gguf_has_no_type_for_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"no type for|more than 64 bits"):
        gguf_stream(tmp_path / "out.gguf", {"x": value}, [])


def test_a_disk_that_is_full_at_the_end_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits as POSIX has them")
    path, before = tmp_path / "out.gguf", resource.getrlimit(resource.RLIMIT_FSIZE)
    with gguf_stream(path, METADATA, TENSORS) as out:
        for info in TENSORS:
            out.write(blocks(info))
    size = path.stat().st_size
    path.unlink()
    for limit in (size - 1, 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with (
                pytest.raises(OSError, match="too large"),
                gguf_stream(path, METADATA, TENSORS) as out,
            ):
                for info in TENSORS:
                    out.write(blocks(info))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == []
