"""safetensors files: read as the library reads them; damage is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.errors import ModelFileError
from dllama.formats.mapped import MappedFile
from dllama.formats.safetensors import MAX_HEADER_BYTES, StoredTensor, read_safetensors
from tests.checkpoints import Entry, write_safetensors

TENSORS: dict[str, Entry] = {
    "a": ("F32", (2, 3), np.arange(6, dtype=np.float32).tobytes()),
    "b": ("BF16", (4,), bytes(range(8))),
    "none": ("F16", (0, 7), b""),
    "scalar": ("F32", (), np.float32(2.5).tobytes()),
}


def read(path: Path) -> dict[str, StoredTensor]:
    file = MappedFile(path)
    try:
        return read_safetensors(file)
    finally:
        file.close()


def written(path: Path, header: object, data: bytes = bytes(8)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_the_library_writes_what_is_read(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    values = {
        "x": rng.standard_normal((3, 5)).astype(np.float32),
        "y.weight": rng.standard_normal(7).astype(np.float16),
        "z": rng.integers(-9, 9, (2, 2, 2)).astype(np.int32),
    }
    library.save_file(values, tmp_path / "m.safetensors", metadata={"format": "np"})
    file = MappedFile(tmp_path / "m.safetensors")
    found = read_safetensors(file)
    assert set(found) == set(values)
    for name, tensor in found.items():
        assert tensor.shape == values[name].shape
        raw = file.view(tensor.offset, tensor.n_bytes, name)
        assert raw.tobytes() == values[name].tobytes()
    assert (found["z"].rows, found["z"].cols) == (4, 2)


def test_what_tests_write_the_library_reads(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    write_safetensors(tmp_path / "m.safetensors", {"a": TENSORS["a"]})
    found = library.load_file(tmp_path / "m.safetensors")
    assert found["a"].tobytes() == TENSORS["a"][2]


def test_empty_and_single_values_have_their_place(tmp_path: Path) -> None:
    found = read(write_safetensors(tmp_path / "m", TENSORS, {"format": "pt"}))
    assert list(found) == list(TENSORS)
    assert found["none"].n_bytes == 0 and found["scalar"].shape == ()


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN: dict[str, object] = {
    "no JSON": b"{",
    "no JSON (a name comes": b'{"a": {"dtype": "F32", "dtype": "F32"}}',
    "no JSON object": [1],
    "has no dtype": {"a": {**ENTRY, "dtype": 3}},
    "has no dtype.": {"a": [1]},
    "no sound shape and": {"a": {**ENTRY, "shape": [-2]}},
    "no sound shape and d": {"a": {**ENTRY, "shape": [True, 2]}},
    "no sound shape and da": {"a": {**ENTRY, "shape": [2.0]}},
    "no sound shape and dat": {"a": {**ENTRY, "data_offsets": [8, 0]}},
    "no sound shape and data": {"a": {**ENTRY, "data_offsets": [0, 1 << 60]}},
    "no sound shape and data_": {"a": {**ENTRY, "shape": [1] * 9}},
    r"has 8 bytes; \[3\] of F32 need 12": {"a": {**ENTRY, "shape": [3]}},
    "overlap": {"a": ENTRY, "b": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}},
    "leave a hole": {"a": {**ENTRY, "shape": [1], "data_offsets": [4, 8]}},
    "but the file at": {"a": {**ENTRY, "shape": [1], "data_offsets": [0, 4]}},
}


@pytest.mark.parametrize(("said", "header"), BROKEN.items(), ids=BROKEN)
def test_a_damaged_header_is_refused(tmp_path: Path, said: str, header: object) -> None:
    said = said.replace("(", r"\(").rstrip(".") if not said.startswith("has 8") else said
    with pytest.raises(ModelFileError, match=said):
        read(written(tmp_path / "m", header))


@pytest.mark.parametrize("n_bytes", [1 << 63, MAX_HEADER_BYTES + 1, 99, MAX_HEADER_BYTES])
def test_a_length_is_not_believed(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "m"
    path.write_bytes(n_bytes.to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError, match=r"at most|ends at 10"):
        read(path)


def test_deep_nesting_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is no JSON"):
        read(written(tmp_path / "m", b"[" * 500_000))


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 300), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_any_damage_is_an_error_or_another_file(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: int
) -> None:
    """Nothing but ModelFileError, and tensors that lie within the file."""
    path = write_safetensors(tmp_path_factory.mktemp("damage") / "m", TENSORS)
    data = bytearray(path.read_bytes())
    data[at % len(data)] = byte
    path.write_bytes(data[: len(data) - cut])
    try:
        found = read(path)
    except ModelFileError:
        return
    size = path.stat().st_size
    assert all(t.offset + t.n_bytes <= size for t in found.values())
