"""The GGUF reader against the gguf library, and against files that are not what they say."""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import closing, suppress
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.errors import ModelFileError, TokenizerError
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile, part_paths
from dllama.formats.writing.convert import write_gguf
from dllama.qtypes import QType
from dllama.quantizing.choice import sizes_of
from tests.references.forward import reference_logits
from tests.shared_data import shared_file
from tests.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf", qtype=QType.Q4_0)


def oracle_metadata(path: Path) -> dict[str, object]:
    reader = gguf.GGUFReader(path)
    return {
        key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")
    }


def assert_same_metadata(path: Path) -> None:
    ours, theirs = GgufFile(path).metadata, oracle_metadata(path)
    assert set(ours) == set(theirs)
    for key, expected in theirs.items():
        found = ours[key]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == expected, key


def test_metadata_of_a_toy_is_what_the_gguf_library_reads(toy: Path) -> None:
    assert_same_metadata(toy)


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_metadata_of_a_real_vocabulary_is_what_the_gguf_library_reads(name: str) -> None:
    assert_same_metadata(shared_file(f"vocab/ggml-vocab-{name}.gguf"))


def test_a_large_vocabulary_comes_out_whole() -> None:
    metadata = GgufFile(shared_file("vocab/ggml-vocab-llama-bpe.gguf")).metadata
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    assert isinstance(tokens, list) and isinstance(merges, list)
    assert (len(tokens), len(merges)) == (128256, 280147)
    assert (tokens[0], tokens[128000], merges[0]) == ("!", "<|begin_of_text|>", "Ġ Ġ")


def test_strings_are_decoded_only_when_asked_for(toy: Path) -> None:
    metadata = GgufFile(toy).metadata
    assert metadata.array_length("tokenizer.ggml.tokens") == 352
    assert metadata["tokenizer.ggml.tokens"] is metadata["tokenizer.ggml.tokens"]
    assert metadata.array_length("general.name") is None


def test_tensors_lie_where_the_gguf_library_finds_them(toy: Path) -> None:
    file = GgufFile(toy)
    reader = gguf.GGUFReader(toy)
    assert [t.name for t in reader.tensors] == list(file.tensors)
    for theirs in reader.tensors:
        ours = file.tensor(theirs.name)
        assert ours.dims == tuple(theirs.shape.tolist())
        assert ours.type_id == theirs.tensor_type
        raw = ours.file.view(ours.offset, ours.n_bytes or 0, "a tensor")
        assert np.array_equal(raw, np.asarray(theirs.data).reshape(-1).view(np.uint8))


def test_every_value_type_is_read(tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_uint8, 200),
        (writer.add_int8, -3),
        (writer.add_uint16, 65535),
        (writer.add_int16, -300),
        (writer.add_uint32, 2**32 - 1),
        (writer.add_int32, -(2**31)),
        (writer.add_uint64, 2**64 - 1),
        (writer.add_int64, -(2**63)),
        (writer.add_float32, 0.5),
        (writer.add_float64, 0.1),
        (writer.add_bool, True),
        (writer.add_string, "Zürich"),
    ):
        add(f"x.{add.__name__}", value)
    writer.add_array("x.bools", [True, False])
    writer.add_array("x.floats", [0.25, 0.5])
    writer.add_array("x.ints", [-1, 7])
    writer.add_array("x.texts", ["", "a", "日本"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    assert_same_metadata(path)


def test_any_byte_but_0_is_true(tmp_path: Path) -> None:
    path = tmp_path / "bools.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("x.bools", [True, False, True])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    at = after(path, b"x.bools", 4 + 4 + 8)  # type, element type, count
    found = GgufFile(patched(path, path, at, b"\x02")).metadata["x.bools"]
    assert isinstance(found, np.ndarray) and found.tolist() == [True, False, True]


def test_version_2_is_read_like_version_3(toy: Path, tmp_path: Path) -> None:
    old = patched(toy, tmp_path / "old.gguf", 4, struct.pack("<I", 2))
    assert GgufFile(old).version == 2
    assert np.array_equal(open_model(old).read("layers.1.w2"), open_model(toy).read("layers.1.w2"))


def patched(source: Path, target: Path, at: int, raw: bytes) -> Path:
    data = bytearray(source.read_bytes())
    data[at : at + len(raw)] = raw
    target.write_bytes(data)
    return target


def after(path: Path, name: bytes, n_bytes: int) -> int:
    """The place so many bytes after a name's only occurrence."""
    data = path.read_bytes()
    assert data.count(name) == 1
    return data.index(name) + len(name) + n_bytes


def test_an_offset_that_is_not_aligned_is_refused(toy: Path, tmp_path: Path) -> None:
    at = after(toy, b"output_norm.weight", 4 + 8 + 4)  # dimensions, the only one, type
    bad = patched(toy, tmp_path / "bad.gguf", at, struct.pack("<Q", 8))
    with pytest.raises(ModelFileError, match="lies at offset 8, which is no multiple"):
        GgufFile(bad)


@pytest.mark.parametrize(
    ("at", "raw", "sentence"),
    [
        (0, b"GGXF", "GGXF"),
        (0, b"lmgg", "GGML file from before GGUF"),
        (0, b"version https://git-lfs", "Git LFS pointer"),
        (4, struct.pack("<I", 1), "GGUF version 1; versions 2 and 3"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**62), "claims 4611686018427387904 tensors"),
        (16, struct.pack("<Q", 2**40), "claims 1099511627776 metadata entries"),
        (24, struct.pack("<Q", 2**63), "inside metadata key 0"),
    ],
)
def test_a_wrong_header_gets_a_sentence(
    toy: Path, tmp_path: Path, at: int, raw: bytes, sentence: str
) -> None:
    bad = patched(toy, tmp_path / "bad.gguf", at, raw)
    with pytest.raises(ModelFileError, match=sentence):
        open_model(bad)


def test_a_real_big_endian_file_gets_a_sentence(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match="big-endian"):
        open_model(tmp_path / "big.gguf")


def test_paths_that_are_no_model_get_a_sentence(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "short.gguf").write_bytes(b"GG")
    with pytest.raises(ModelFileError, match="There is no file at"):
        open_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match=r"is empty"):
        open_model(tmp_path / "empty.gguf")
    with pytest.raises(ModelFileError, match="is a text"):
        open_model(tmp_path / "short.gguf")
    with pytest.raises(ModelFileError, match=r"directory.*empty\.gguf"):
        open_model(tmp_path)
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_model("/dev/null")
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_model(tmp_path / "pipe.gguf")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_says_so(toy: Path, tmp_path: Path, share: float) -> None:
    raw = toy.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(raw[: 24 + int(share * (len(raw) - 24)) - 1])
    with pytest.raises(ModelFileError, match=r"truncated"):
        open_model(tmp_path / "cut.gguf")


# split files


@pytest.fixture(scope="module")
def parts(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The toy, split by the gguf library into files of at most 8 tensors."""
    directory = tmp_path_factory.mktemp("split")
    writer = gguf.GGUFWriter(directory / "toy.gguf", "llama", split_max_tensors=8)
    reader = gguf.GGUFReader(toy)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        sub = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(directory.glob("*.gguf"))


def test_any_part_opens_the_whole_model(toy: Path, parts: list[Path]) -> None:
    assert [p.name for p in parts] == [f"toy-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    expected = reference_logits(open_model(toy), [1, 2, 3])
    for part in parts:
        assert part_paths(part) == parts
        assert np.array_equal(reference_logits(open_model(part), [1, 2, 3]), expected)


def test_a_missing_part_is_named(parts: list[Path], tmp_path: Path) -> None:
    for part in parts[:2]:
        shutil.copy(part, tmp_path)
    with pytest.raises(ModelFileError, match=r"toy-00003-of-00003\.gguf is missing"):
        open_model(tmp_path / parts[1].name)


def test_parts_under_wrong_names_are_noticed(parts: list[Path], tmp_path: Path) -> None:
    shutil.copy(parts[0], tmp_path / "renamed.gguf")
    with pytest.raises(ModelFileError, match="one of 3 parts, but its name"):
        open_model(tmp_path / "renamed.gguf")
    shutil.copy(parts[0], tmp_path / parts[0].name)
    shutil.copy(parts[2], tmp_path / parts[1].name)
    shutil.copy(parts[1], tmp_path / parts[2].name)
    with pytest.raises(ModelFileError, match="says it is part 2 of 3"):
        open_model(tmp_path / parts[0].name)
    shutil.copy(parts[0], tmp_path / "toy-00004-of-00003.gguf")
    with pytest.raises(ModelFileError, match="no part 00004 of 00003"):
        open_model(tmp_path / "toy-00004-of-00003.gguf")


@pytest.mark.parametrize("promised", [5, 50])
def test_parts_hold_as_many_tensors_as_the_first_promises(
    parts: list[Path], tmp_path: Path, promised: int
) -> None:
    for part in parts:
        shutil.copy(part, tmp_path)
    first = tmp_path / parts[0].name
    at = after(first, b"split.tensors.count", 4)
    patched(first, first, at, struct.pack("<I", promised))
    with pytest.raises(ModelFileError, match=f"the first one promises {promised}"):
        GgufFile(first)


@pytest.mark.parametrize("value", [[0, 0], [0, 1], [1.5, float("nan")]])
@pytest.mark.parametrize(
    "key",
    ["llama.nextn_predict_layers", "llama.expert_count", "llama.attention.sliding_window",
     "llama.logit_scale", "split.no", "tokenizer.ggml.bos_token_id"],
)  # fmt: skip
def test_a_list_in_place_of_a_number_is_read_or_refused(
    toy: Path, tmp_path: Path, key: str, value: list[float]
) -> None:
    metadata = {**metadata_of(str(toy), None), key: np.array(value)}
    path = tmp_path / "odd.gguf"
    with closing(open_model(toy)) as source:
        write_gguf(source, metadata, path)
    with suppress(ModelFileError, TokenizerError):
        open_model(path).close()
        load_tokenizer(str(path), None)
    sizes_of(metadata)
