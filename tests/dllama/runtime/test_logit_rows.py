"""Logits that are no numbers reach the sampler as such and stop nobody else."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dllama.engine.engine import Engine
from dllama.errors import ConfigError
from dllama.formats import open_model
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.runtime.logit_rows import merge_parts
from tests.local_model import load_rank, local_runner
from tests.toy_models import write_toy


def _part(tops: list[float], sums: list[float], row: list[float]) -> bytes:
    return b"".join([
        np.int32(len(row)).tobytes(), np.array(tops, np.float32).tobytes(),
        np.array(sums, np.float32).tobytes(), np.array(row, np.float32).tobytes(),
    ])  # fmt: skip


def test_log_sum_exp_over_ranks() -> None:
    values = np.array([1.0, 2.0, 5.0, -3.0])
    parts = [
        _part([2.0], [math.exp(-1) + 1], [1.0, 2.0]),
        _part([5.0], [1 + math.exp(-8)], [5.0, -3.0]),
        _part([-math.inf], [0.0], []),  # a rank without vocabulary
    ]
    [row] = merge_parts(parts, np.array([0], np.int32))
    assert abs(row.log_sum_exp - np.log(np.exp(values).sum())) < 1e-6
    assert np.array_equal(row.logits, values.astype(np.float32))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_strange_sums_are_no_number(bad: float) -> None:
    [row] = merge_parts([_part([bad], [bad], [bad, 0.0])], np.array([0], np.int32))
    assert math.isnan(row.log_sum_exp)


def test_a_model_with_a_hole_ends_only_the_answers_that_meet_it(tmp_path: Path) -> None:
    """One embedding row of NaN, as a damaged file may have it."""
    path = write_toy(tmp_path / "toy.gguf")
    source = open_model(path)
    row = np.ascontiguousarray(source.read("embed", range(300, 301))).tobytes()
    source.close()
    data = bytearray(path.read_bytes())
    at = bytes(data).index(row)
    data[at : at + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with local_runner(path) as runner:
        engine = Engine(runner)
        for name, tokens in (("bad", [1, 300]), ("good", [1, 2, 3])):
            engine.submit(Submit(name, tokens, SamplingParams(temperature=0), max_tokens=4))
        ends = {}
        while engine.has_work():
            for output in engine.step():
                ends[output.id] = output
    assert ends["bad"].finish is FinishReason.ERROR and ends["bad"].error
    assert ends["good"].finish is FinishReason.LENGTH


def test_a_rank_without_room_is_refused(tmp_path: Path) -> None:
    from dllama.sharding.plan import plan_for

    source = open_model(write_toy(tmp_path / "toy.gguf"))
    [shard] = plan_for(source.config, source.tensors, [1.0])
    with pytest.raises(ConfigError, match="leave no room to work"):
        load_rank(source, shard, n_pages=0)
