"""Every family against `transformers`: folders as it saves them, and GGUF files that `dllama
convert` makes of them, have the logits that were recorded from it, on one to three nodes, in a
prompt and token by token, across the edges of windows and a context shift. With PyTorch (the
`train` extra) the records are computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.formats import open_model
from dllama.formats.checkpoint.source import checkpoint_metadata
from dllama.formats.writing.convert import write_gguf
from tests.dllama.models.our_logits import compare
from tests.dllama.models.records import (
    N_PROMPT,
    RECORDS,
    ROWS,
    SHIFT,
    TOKENS,
    recorded_logits,
    write_folder,
)
from tests.dllama.models.transformers_cases import CASES, STATEFUL


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    folder, converted = write_folder(name, tmp_path / "toy"), tmp_path / "toy.gguf"
    write_gguf(open_model(folder), checkpoint_metadata(folder), converted)
    shift = None if name in STATEFUL else SHIFT
    for model, ranks in (folder, (1, 3)), (converted, (2,)):
        compare(
            model, recorded_logits(name), TOKENS, N_PROMPT, rows=ROWS, shift=shift, n_ranks=ranks
        )


@pytest.mark.parametrize("name", CASES)
def test_records_are_what_transformers_computes(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")
    from tests.dllama.models.beside_transformers import their_logits

    folder = write_folder(name, tmp_path / "toy")
    logits = their_logits(folder, TOKENS, None if name in STATEFUL else SHIFT)[ROWS]
    recorded = recorded_logits(name)
    np.testing.assert_allclose(recorded, logits, atol=1e-5 * np.abs(logits).max())


def test_every_record_is_a_case() -> None:
    assert {path.name for path in RECORDS.iterdir()} == set(CASES)
