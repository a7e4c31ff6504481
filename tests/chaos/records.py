"""Outcomes in a file, a line of JSON each, so that a long run can be made in parts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.load import Finding
from tests.chaos.trial import Outcome


def append(file: Path, outcome: Outcome) -> None:
    """Adds an outcome to a file, at once."""
    with file.open("a") as opened:
        opened.write(json.dumps({**asdict(outcome), "fault": outcome.fault.name}, default=str))
        opened.write("\n")


def read(files: Iterable[Path]) -> list[Outcome]:
    """Returns the outcomes of files. Faults that have another name by now are left out."""
    rows = {row.name: row for row in FAULTS}
    found = []
    for file in files:
        for line in file.read_text().splitlines():
            said = json.loads(line)
            fault = rows.get(said.pop("fault"))
            if fault is not None:
                findings = [Finding(**finding) for finding in said.pop("findings")]
                found.append(Outcome(fault, findings=findings, **said))
    return found
