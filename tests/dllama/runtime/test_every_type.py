"""Every type of weights, from a GGUF file to logits: against the float64 reference over what gguf
reads in the same blocks, on one rank and cut over two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.random_model import SHAPES, write_random
from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.formats import open_model
from dllama.qtypes import COMPUTABLE, QType
from tests.local_model import Ranks, local_runner, make_step
from tests.references.forward import reference_logits

pytest.importorskip("gguf", reason="the oracle for block formats is the gguf package")

SHAPE = replace(SHAPES["tiny"], n_layers=2, hidden_dim=512, vocab_size=512)
TOKENS = np.random.default_rng(1).integers(0, SHAPE.vocab_size, 40).tolist()
IS_EXACT = {QType.F32, QType.F16}
"""Types whose activations are not rounded to int8 or bfloat16; keys and values are half floats."""


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """The size of the difference, as a share of what is expected."""
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("qtype", sorted(COMPUTABLE), ids=lambda qtype: qtype.name)
def test_logits_are_the_references(tmp_path: Path, qtype: QType) -> None:
    path = tmp_path / "random.gguf"
    write_random(path, SHAPE, qtype)
    source = open_model(path)
    assert source.tensors["layers.1.w2"].qtype is qtype
    expected, step = reference_logits(source, TOKENS), make_step([(0, TOKENS, 0)], every_row=True)
    assert expected.std() > 1
    with local_runner(path) as runner:
        whole = np.array([row.logits for row in runner.run(step)])
    group = ThreadGroup(2)
    ranks = Ranks(path, [1.0, 1.0], [ThreadCollective(group, rank) for rank in range(2)])
    try:
        cut = np.array([row.logits for row in ranks.run(step)])
    finally:
        ranks.close()
    limit = 5e-3 if qtype in IS_EXACT else 0.05
    assert error(whole, expected) < limit
    assert error(cut, expected) < limit
