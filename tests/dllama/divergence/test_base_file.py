"""The file of a base model's probabilities: its bytes, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from dllama.divergence.base_file import BaseFile, BaseWriter, file_bytes, stored_row
from dllama.errors import ModelFileError
from dllama.step import LogitRow

WIDTH, VOCAB = 9, 37
WINDOWS = [[3, 1, 4, 1, 5, 9, 2, 6, 5], [35, 8, 9, 7, 9, 3, 2, 3, 36]]


def logit_row(seed: int, spread: float = 3.0) -> LogitRow:
    logits = (spread * np.random.default_rng(seed).standard_normal(VOCAB)).astype(np.float32)
    return LogitRow(None, logits, float(np.log(np.exp(logits.astype(float)).sum())))


def written(path: Path, n_rows: int = 8) -> Path:
    with BaseWriter(path, WINDOWS, VOCAB) as out:
        for i in range(n_rows):
            out.add(logit_row(i))
    return path


def test_rows_come_back_within_half_a_step(tmp_path: Path) -> None:
    base = BaseFile(written(tmp_path / "base"))
    assert (base.width, base.vocab_size, base.windows) == (WIDTH, VOCAB, WINDOWS)
    rows = [row for window in range(2) for row in base.rows(window)]
    assert len(rows) == 8
    for i, found in enumerate(rows):
        row = logit_row(i)
        expected = row.logits - row.log_sum_exp
        spread = row.logits.max() - row.logits.min()
        assert np.abs(found - np.maximum(expected, expected.max() - 16)).max() < spread / 65535
    base.close()


def test_the_bytes_are_those_of_llama_perplexity(tmp_path: Path) -> None:
    """Its head, and a row written down from its source."""
    data = written(tmp_path / "base").read_bytes()
    assert data[:20] == b"_logits_" + struct.pack("<iii", WIDTH, VOCAB, 2)
    assert data[20:92] == np.array(WINDOWS, "<i4").tobytes()
    assert len(data) == file_bytes(WIDTH, VOCAB, 2) == 92 + 8 * 2 * (38 + 4)
    row = logit_row(0)
    top, low = row.logits.max(), row.logits.min()
    step = np.float32((top - low) / np.float32(65535))
    words = np.frombuffer(data[92 : 92 + 84], "<u2")
    assert words[:4].view("<f4").tolist() == pytest.approx([step, low - row.log_sum_exp])
    expected = np.rint((row.logits - low) / step)
    assert np.abs(words[4:41] - expected).max() <= 1 and words[41] == 0


def test_unlikely_tokens_and_rows_of_one_value_have_a_place() -> None:
    wide = stored_row(logit_row(1, spread=100.0))
    assert (wide[4:41] == 0).sum() > 10 and wide[4:41].max() == 65535
    flat = stored_row(LogitRow(None, np.full(VOCAB, 2, np.float32), 2 + np.log(VOCAB)))
    assert not flat[4:].any() and flat[:4].view("<f4")[1] == pytest.approx(-np.log(VOCAB))


def test_an_unfinished_file_never_gets_its_name(tmp_path: Path) -> None:
    written(tmp_path / "base", n_rows=7)
    with pytest.raises(KeyboardInterrupt), BaseWriter(tmp_path / "base", WINDOWS, VOCAB):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("at", "data", "said"),
    [
        (0, b"_logitz_", "holds no probabilities"),
        (8, struct.pack("<i", 3), "not those of 2 windows of 3"),
        (8, struct.pack("<i", -9), "not those of 2 windows of -9"),
        (12, struct.pack("<i", 2**31 - 1), "a vocabulary of 2147483647"),
        (16, struct.pack("<i", 3), "not those of 3 windows"),
        (20, struct.pack("<i", VOCAB), "tokens that its vocabulary of 37 does not know"),
        (20, struct.pack("<i", -1), "does not know"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, at: int, data: bytes, said: str) -> None:
    whole = bytearray(written(tmp_path / "base").read_bytes())
    whole[at : at + len(data)] = data
    (tmp_path / "bad").write_bytes(whole)
    with pytest.raises(ModelFileError, match=said):
        BaseFile(tmp_path / "bad")
    (tmp_path / "short").write_bytes(whole[:-1] if at else whole[:10])
    with pytest.raises(ModelFileError, match=r"holds no probabilities|not those of"):
        BaseFile(tmp_path / "short")
