"""What the kernels have no room for is refused before anything is packed."""

from __future__ import annotations

import numpy as np
import pytest

from dllama.errors import ModelFileError
from dllama.qtypes import QType
from dllama.runtime.linear import LinearBuilder
from dllama.weight_source import TensorInfo
from kernels.formats import format_of
from kernels.team import Team


@pytest.mark.parametrize(
    ("qtype", "fits"),
    [(QType.Q4_0, False), (QType.Q8_0, False), (QType.F16, False), (QType.F32, True)],
)
def test_rows_that_are_too_long(qtype: QType, fits: bool) -> None:
    limit = format_of(qtype.name.lower()).max_cols
    cols = ((limit or 1 << 17) // 256 + 1) * 256
    info = TensorInfo("layers.0.w2", qtype, 1, cols)
    raw = np.zeros((1, info.row_bytes), np.uint8)
    with Team(1) as team:
        builder = LinearBuilder(team.state, 1)
        if fits:
            builder.add(info, raw)
            assert builder.linear().cols == cols
            return
        with pytest.raises(ModelFileError, match=rf"w2 has {cols} columns; of {qtype.name} .*"):
            builder.add(info, raw)


def test_neighbours_of_one_type_are_packed_as_one() -> None:
    kinds = [("wq", QType.Q8_0, 32), ("wk", QType.Q8_0, 16), ("wv", QType.F16, 16)]
    with Team(1) as team:
        builder = LinearBuilder(team.state, 64)
        for name, qtype, rows in kinds:
            info = TensorInfo(f"layers.0.{name}", qtype, rows, 64)
            builder.add(info, np.zeros((rows, info.row_bytes), np.uint8))
        linear = builder.linear()
    parts = [(first, packed.format, packed.rows) for first, packed in linear.parts]
    assert parts == [(0, "q8_0", 48), (48, "f16", 16)]
    assert (linear.out_dim, linear.cols, linear.width) == (64, 64, 64)
