"""Files that are quantized, as the gguf library and we read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from dllama.cli.model_file import metadata_of
from dllama.errors import ConfigError, ModelFileError
from dllama.formats import open_model
from dllama.formats.quantized import open_weights
from dllama.formats.writing.convert import write_gguf
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.qtypes import QType
from dllama.quantizing.choice import Recipe, mix_named
from dllama.quantizing.errors_found import Kind
from dllama.quantizing.quantize import Quantizer, plan_of
from dllama.quantizing.tensor_files import open_tensors
from dllama.weight_source import TensorInfo
from tests.checkpoints import write_checkpoint
from tests.dllama.cli.test_commands import dllama
from tests.toy_models import write_toy


def quantized(
    model: Path, out: Path, name: str, on_bytes: Callable[[int], None] = lambda n: None,
    *, keeps_parts: bool = False, **more: bool,
) -> dict[str, Kind]:  # fmt: skip
    with closing(open_tensors(model)) as file:
        recipe = Recipe(mix_named(name), **more)
        quantizer = Quantizer(file, recipe, plan_of(file, recipe), 2, on_bytes)
        quantizer.write(out, keeps_parts=keeps_parts)
    return quantizer.kinds


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 288 values are no blocks of 256."""
    path = tmp_path_factory.mktemp("toy") / "toy.gguf"
    return write_toy(path, dim=256, hidden_dim=288, qtype=QType.F16)


def values(path: Path) -> dict[str, np.ndarray]:
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in tensors}


def test_the_errors_told_are_those_of_the_file(toy: Path, tmp_path: Path) -> None:
    out, read = tmp_path / "out.gguf", []
    kinds = quantized(toy, out, "q4_k_m", read.append)
    before, after = values(toy), values(out)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(out).tensors}
    assert (types["blk.1.ffn_up.weight"], types["blk.1.ffn_down.weight"]) == ("Q4_K", "Q8_0")
    for name, kind in kinds.items():
        layers = [n for n in before if n.removeprefix("blk.0.").removeprefix("blk.1.") == name]
        errors = np.concatenate([(after[n] - before[n]).reshape(-1) for n in layers])
        assert kind.errors.rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
        assert kind.errors.largest == pytest.approx(np.abs(errors).max(), rel=1e-4)
    assert 0.05 < kinds["attn_q.weight"].errors.relative < 0.09
    assert kinds["attn_norm.weight"].errors.n_values == 0
    assert sum(read) == sum(k.bytes_before for k in kinds.values())


def test_all_else_is_what_it_was(toy: Path, tmp_path: Path) -> None:
    """Metadata with their types, and the order of the tensors."""
    out = tmp_path / "out.gguf"
    quantized(toy, out, "q5_k_s")
    ours, theirs = gguf.GGUFReader(out), gguf.GGUFReader(toy)
    assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
    for key, field in theirs.fields.items():
        if key.startswith("GGUF.") or key == "general.file_type":
            continue
        assert ours.fields[key].types == field.types
        assert ours.fields[key].contents() == field.contents()
    assert ours.fields["general.file_type"].contents() == 16
    with closing(open_model(out)) as model:
        assert model.tensors["layers.0.wq"].qtype is QType.Q5_K


def test_a_folder_gives_the_file_of_its_converted_form(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy", arch="qwen2", qtype=QType.BF16, tied=True)
    converted, outs = tmp_path / "converted.gguf", (tmp_path / "a.gguf", tmp_path / "b.gguf")
    with closing(open_weights(folder, None)) as source:
        write_gguf(source, metadata_of(str(folder), None), converted)
    for model, out in zip((folder, converted), outs, strict=True):
        quantized(model, out, "q8_0")
    first, second = (values(out) for out in outs)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_file_of_any_architecture_is_quantized(tmp_path: Path) -> None:
    model, out = tmp_path / "new.gguf", tmp_path / "out.gguf"
    infos = [
        TensorInfo("blk.0.new_exps.weight", QType.F32, 3 * 4, 64, n_experts=3),
        TensorInfo("blk.0.new_norm.weight", QType.F32, 1, 64),
    ]
    rng = np.random.default_rng(0)
    with gguf_stream(model, {"general.architecture": "new", "general.alignment": 64}, infos) as f:
        for info in infos:
            f.write(rng.standard_normal((info.rows, info.cols)).astype(np.float32))
    quantized(model, out, "q4_0")
    found = {t.name: t for t in gguf.GGUFReader(out).tensors}
    assert found["blk.0.new_exps.weight"].shape.tolist() == [64, 4, 3]
    assert found["blk.0.new_exps.weight"].tensor_type.name == "Q4_0"
    assert np.array_equal(values(out)["blk.0.new_norm.weight"], values(model)[infos[1].name])


def test_parts_stay_parts_or_become_one(toy: Path, tmp_path: Path) -> None:
    reader = gguf.GGUFReader(toy)
    writer = gguf.GGUFWriter(tmp_path / "toy.gguf", "llama", split_max_tensors=8)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file,
                  writer.write_tensors_to_file):  # fmt: skip
        write()
    writer.close()
    parts = sorted(tmp_path.glob("toy-*.gguf"))
    assert len(parts) == 3
    quantized(parts[0], tmp_path / "out.gguf", "q8_0", keeps_parts=True)
    quantized(parts[0], tmp_path / "one.gguf", "q8_0")
    with closing(open_tensors(tmp_path / "out-00002-of-00003.gguf")) as many:
        assert many.n_parts == 3 and len(many.tensors) == len(reader.tensors)
        for theirs, ours in zip(parts, sorted(tmp_path.glob("out-*.gguf")), strict=True):
            assert values(theirs).keys() == values(ours).keys()
    one = gguf.GGUFReader(tmp_path / "one.gguf")
    assert len(one.tensors) == len(reader.tensors) and "split.count" not in one.fields


@pytest.mark.parametrize("keeps_parts", [False, True])
def test_nothing_is_left_where_it_is_broken_off(
    toy: Path, tmp_path: Path, keeps_parts: bool
) -> None:
    def interrupt(n_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantized(toy, tmp_path / "out.gguf", "q8_0", interrupt, keeps_parts=keeps_parts)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match=r"out\.gguf will have .* its disk has 0\.00 GB free"):
        quantized(toy, tmp_path / "out.gguf", "q8_0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    model = tmp_path / "bad.gguf"
    with gguf_stream(model, {}, [TensorInfo("blk.0.x.weight", QType.F32, 4, 64)]) as out:
        out.write(np.where(np.arange(256) == 77, bad, 1).astype(np.float32))
    with pytest.raises(ModelFileError, match=r"blk\.0\.x\.weight has values that are no numbers"):
        quantized(model, tmp_path / "out.gguf", "q8_0")
    assert list(tmp_path.iterdir()) == [model]


def test_the_command_says_what_it_did(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    done = dllama("quantize", toy, out, "q4_k_m", "--tensor-type", "attn_k=q8_0", "--json")
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stderr
    kinds = {kind["name"]: kind for kind in json.loads(done.stdout)}
    assert kinds["attn_k.weight"]["types"] == {"F16 to Q8_0": 2}
    again = dllama("quantize", out, tmp_path / "b.gguf", "q4_0")
    assert again.returncode == 1 and "--allow-requantize" in again.stderr
    assert sorted(tmp_path.iterdir()) == [out]
