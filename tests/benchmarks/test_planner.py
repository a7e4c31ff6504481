"""The whole bench on a tiny model: asserts what is told, never how fast."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from benchmarks import planner
from benchmarks.lan import planned
from benchmarks.lan.cpu_quota import why_no_quota
from benchmarks.lan.planned import SET_UPS, in_words, row_of
from benchmarks.namespaces import why_no_namespaces
from benchmarks.random_model import SHAPES, write_random
from dllama.qtypes import QType
from tests.leaks import no_leaks

__all__ = ["no_leaks"]


@pytest.mark.usefixtures("no_leaks")
def test_what_was_predicted_stands_beside_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for why_not in (why_no_namespaces(), why_no_quota()):
        if why_not is not None:
            pytest.skip(why_not)
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two nodes need two cores")
    model, out = tmp_path / "tiny.gguf", tmp_path / "found.json"
    write_random(model, SHAPES["tiny"], QType.Q4_0)
    monkeypatch.setenv("DLLAMA_SHARED_MEMORY", "1")  # restored after main has changed it
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # pytest keeps its own
    monkeypatch.setattr(planned, "SPARE_S", 0.1)
    words = ["--models", str(model), "--tests", "pp16,tg4", "--rounds", "2", "--json", str(out)]
    assert planner.main([*words, "--set-ups", "one-core,unequal"]) == 0
    found = json.loads(out.read_text())
    rows = {(row["set_up"], row["test"]): row for row in found["rows"]}
    one, unequal = (in_words(SET_UPS[name]) for name in ("one-core", "unequal"))
    assert set(rows) == {(name, test) for name in (one, unequal) for test in ("pp16", "tg4")}
    for row in rows.values():
        assert row["predicted_per_s"] > 0 and len(row["ratios"]) == 2
    assert rows[one, "tg4"]["predicted_network_ms"] == 0 < rows[unequal, "tg4"]["network_ms"]
    assert rows[one, "tg4"]["shares"] == [1.0]
    assert rows[unequal, "tg4"]["shares"] != [1.0, 1.0], "shares were planned"
    assert "predicted" in capsys.readouterr().out
    assert f"| tiny | {unequal} | tg4 |" in out.with_suffix(".md").read_text()


def test_the_error_is_of_the_median_ratio() -> None:
    names = ("predicted_compute_ms", "predicted_network_ms", "compute_ms", "wait_ms", "network_ms")
    samples = [
        {"predicted_per_s": p, "tokens_per_s": m, "shares": [1.0], **dict.fromkeys(names, p)}
        for p, m in ((10.0, 20.0), (11.0, 10.0), (30.0, 10.0))
    ]
    row = row_of(SET_UPS["one-core"], "m", "tg4", samples)
    assert row["error"] == pytest.approx(0.1) and row["ratios"] == [0.5, 1.1, 3.0]
    assert (row["predicted_per_s"], row["tokens_per_s"]) == (11.0, 10.0)
    assert planner.cells_of(row)[3:] == ["11.0", "10.0", "+10%", "11.00 + 11.00", "11.00 + 22.00"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rounds", "0"], "--rounds is 1 or more"),
        (["--set-ups", "moon"], "some of one-core, two-cores, gigabit, 100-mbit, unequal"),
        (["--tests", "tg4xb2"], "one sequence"),
        (["--tests", "pp"], "'pp' is no test"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        planner.main(words)
    assert said in capsys.readouterr().err
