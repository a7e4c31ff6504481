"""Whatever happens to a file's bytes, opening and reading it ends in ModelFileError or in data,
and never asks for more memory than the file has bytes (give or take what parsing needs)."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.inspect.describe import describe
from dllama.inspect.render import render
from dllama.qtypes import QType
from tests.toy_models import write_toy

ALLOWED_BYTES = 4_000_000  # the toys have under 60,000; parsing them needs some objects
FUZZ = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["gguf", "m"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "toy"
    write_toy(
        path, fmt=request.param, qtype=QType.Q4_0, dim=32, hidden_dim=64, n_layers=1, vocab_size=270
    )
    render(describe(path))  # modules that the first description brings in are no memory of files
    return path


@pytest.fixture(scope="module", autouse=True)
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def head_bytes(toy: Path) -> int:
    """Where descriptions end and weights, which may hold anything, begin."""
    if toy.read_bytes()[:4] == b"GGUF":
        return min(tensor.offset for tensor in GgufFile(toy).tensors.values())
    return struct.unpack_from("<i", toy.read_bytes(), 4)[0]


def survive(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        render(describe(path))
        source = open_model(path)
    except ModelFileError as error:
        assert str(path) in str(error) and str(error).endswith(".")
    else:
        dict(getattr(source, "metadata", {}))
        for name, info in source.tensors.items():
            assert source.read(name).shape == (info.rows, info.row_bytes)
        source.close()
    assert tracemalloc.get_traced_memory()[1] - before < ALLOWED_BYTES


@FUZZ
@given(share=st.floats(0, 1))
def test_any_truncation(toy: Path, share: float) -> None:
    raw = toy.read_bytes()
    survive(toy.with_suffix(".cut"), raw[: int(share * len(raw))])


@FUZZ
@given(data=st.data())
def test_any_flipped_bytes(toy: Path, data: st.DataObject) -> None:
    raw = bytearray(toy.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, head_bytes(toy) - 1))] = data.draw(st.integers(0, 255))
    survive(toy.with_suffix(".flip"), bytes(raw))


@FUZZ
@given(data=st.data())
def test_any_number_in_place_of_another(toy: Path, data: st.DataObject) -> None:
    """Lengths and counts are what a parser trusts, so whole words are replaced as well."""
    raw = bytearray(toy.read_bytes())
    at = data.draw(st.integers(0, head_bytes(toy) - 8))
    number = data.draw(st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([2**31, 2**62, 10**6])))
    raw[at : at + 8] = number.to_bytes(8, "little")
    survive(toy.with_suffix(".word"), bytes(raw))
