"""The table has a row for each kind of fault and one for all, with medians and maxima."""

from __future__ import annotations

from pathlib import Path

from tests.chaos import records
from tests.chaos.faults import FAULTS
from tests.chaos.load import Finding
from tests.chaos.report import table
from tests.chaos.trial import Outcome

OUTCOMES = [
    Outcome(FAULTS[0], 1, notice_s=0.25, serve_s=1.0, carried_bytes=3_000_000, weights_mb=2),
    Outcome(FAULTS[0], 2, notice_s=0.75, serve_s=5.0, carried_bytes=5_000_000),
    Outcome(
        FAULTS[1], 3, findings=[Finding(0.0, "greedy", True, ""), Finding(0.0, "x", False, "")]
    ),
]


def test_a_row_for_each_kind_and_one_for_all() -> None:
    first, second = FAULTS[0], FAULTS[1]
    lines = table(OUTCOMES).splitlines()
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in li.split("|")] for li in lines)}
    assert rows[first.name] == ["2", "2", "0.5 / 0.8", "3.0 / 5.0", "4 / 5", "1 / 2", "0", "0"]
    assert rows[second.name] == ["1", "0", "–", "–", "–", "0 / 0", "1", "1"]
    assert rows["**all**"][0] == "3" and len(rows["fault"]) == len(rows["**all**"])


def test_a_run_in_parts_has_one_table(tmp_path: Path) -> None:
    for outcome in OUTCOMES:
        records.append(tmp_path / "records", outcome)
    assert records.read([tmp_path / "records"]) == OUTCOMES
