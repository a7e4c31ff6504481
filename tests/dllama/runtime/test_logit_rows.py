"""Logits that are no numbers reach the sampler as such and stop nobody else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.engine.engine import Engine
from dllama.errors import ConfigError, ProtocolError
from dllama.formats import open_model
from dllama.requests import FinishReason, SamplingParams, Submit
from dllama.runtime.logit_rows import merge_parts
from dllama.step import LogitRow
from tests.local_model import load_rank, local_runner, make_step
from tests.ranks_runner import RanksRunner
from tests.toy_models import write_toy

UNIT = 1024


def _part(tops: list[float], sums: list[float], row: list[float]) -> bytes:
    """One row over a unit that is longer than the vocabulary."""
    return b"".join([
        np.int32(len(row)).tobytes(), np.array(tops, np.float32).tobytes(),
        np.array(sums, np.float32).tobytes(), np.array(row, np.float32).tobytes(),
    ])  # fmt: skip


def test_log_sum_exp_over_ranks() -> None:
    values = np.array([1.0, 2.0, 5.0, -3.0])
    parts = [
        _part([2.0], [math.exp(-1) + 1], [1.0, 2.0]),
        _part([5.0], [1 + math.exp(-8)], [5.0, -3.0]),
        _part([], [], []),  # a rank without vocabulary
    ]
    [row] = merge_parts(parts, np.array([0], np.int32), UNIT, 4)
    assert abs(row.log_sum_exp - np.log(np.exp(values).sum())) < 1e-6
    assert np.array_equal(row.logits, values.astype(np.float32))


def test_candidates_of_all_ranks_come_best_first_and_equal_ones_by_id() -> None:
    def listed(ids: list[int], values: list[float]) -> bytes:
        kept = np.array(ids, np.int32).tobytes() + np.array(values, np.float32).tobytes()
        return _part([values[0]], [1.0], [0.0] * 3)[:-12] + kept

    parts = [listed([2, 0], [5.0, 3.0]), listed([4, 3], [5.0, 4.0]), listed([7, 6], [6.0, 5.0])]
    [row] = merge_parts(parts, np.array([2], np.int32), UNIT, 9)
    assert row.ids is not None and (row.ids.tolist(), row.logits.tolist()) == ([7, 2], [6.0, 5.0])


@pytest.mark.parametrize("n_missing", [1, 4, 12])
def test_a_part_that_ends_too_soon_is_refused(n_missing: int) -> None:
    whole = _part([1.0], [1.0], [1.0, 0.0])
    with pytest.raises(ProtocolError, match="were announced"):
        merge_parts([whole[:-n_missing]], np.array([0], np.int32), UNIT, 2)


@pytest.mark.parametrize("bad_id", [-1, 3, 2**31 - 1])
def test_ids_that_stand_for_no_token_are_refused(bad_id: int) -> None:
    part = _part([1.0], [1.0], [0.0] * 3)[:-12]
    part += np.array([bad_id], np.int32).tobytes() + np.array([1.0], np.float32).tobytes()
    with pytest.raises(ProtocolError, match="none of 3 is"):
        merge_parts([part], np.array([1], np.int32), UNIT, 3)


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_parts_of_another_vocabulary_are_refused(n_tokens: int) -> None:
    parts = [_part([1.0], [1.0], [1.0, 0.0]), _part([], [], [])]
    with pytest.raises(ProtocolError, match="logits of 2 tokens"):
        merge_parts(parts, np.array([0], np.int32), UNIT, n_tokens)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_strange_sums_are_no_number(bad: float) -> None:
    [row] = merge_parts([_part([bad], [bad], [bad, 0.0])], np.array([0], np.int32), UNIT, 2)
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


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_rows_of_padding_are_in_no_row_of_logits(tmp_path: Path, world_size: int) -> None:
    """A head of 1000 rows for 300 tokens: later ranks hold nothing but padding."""
    real = write_toy(tmp_path / "real.gguf", vocab_size=1000)
    padded = write_toy(tmp_path / "padded.gguf", vocab_size=1000, n_tokens=300)
    rows = {}
    for path, n in ((real, [0] * 3), (padded, [0, 20, 256])):
        runner = RanksRunner(path, world_size)
        step = make_step([(0, [5, 6, 7], 0)], every_row=True)
        rows[path] = runner.run(replace(step, candidates=np.array(n, np.int32)))
        rows[path] = [LogitRow(r.ids, r.logits.copy(), r.log_sum_exp) for r in rows[path]]
        runner.close()
    for whole, found, n in zip(rows[real], rows[padded], (0, 20, 256), strict=True):
        logits = whole.logits[:300]
        assert found.log_sum_exp == pytest.approx(np.logaddexp.reduce(logits), abs=1e-4)
        order = np.lexsort((np.arange(300), -logits))[:n]
        assert (found.ids is None) == (n == 0)
        assert np.array_equal(found.logits, logits[order] if n else logits)
        assert found.ids is None or np.array_equal(found.ids, order)


def test_a_rank_without_room_is_refused(tmp_path: Path) -> None:
    from dllama.sharding.plan import plan_for

    source = open_model(write_toy(tmp_path / "toy.gguf"))
    [shard] = plan_for(source.config, source.tensors, [1.0])
    with pytest.raises(ConfigError, match="leave no room to work"):
        load_rank(source, shard, n_pages=0)
