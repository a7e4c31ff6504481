"""The table of a run, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.chaos.trial import Outcome

HEAD = (
    "fault",
    "times",
    "noticed",
    "after, s",
    "serves again after, s",
    "MB carried",
    "weights, MB",
    "streams lost",
    "answers changed",
)


def _spread(values: Sequence[float | None], digits: int = 1) -> str:
    """Returns median and maximum of what is known."""
    known = [value for value in values if value is not None]
    return f"{median(known):.{digits}f} / {max(known):.{digits}f}" if known else "–"


def _row(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    carried = [o.carried_bytes / 1e6 for o in outcomes if o.carried_bytes is not None]
    return (
        name,
        str(len(outcomes)),
        str(sum(outcome.notice_s is not None for outcome in outcomes)),
        _spread([o.notice_s for o in outcomes]),
        _spread([o.serve_s for o in outcomes]),
        _spread(carried, 0),
        _spread([outcome.weights_mb for outcome in outcomes], 0),
        str(sum(finding.is_lost for finding in findings)),
        str(sum(not finding.is_lost for finding in findings)),
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Returns a row for each kind of fault and one for all; times are medians and maxima."""
    names = list(dict.fromkeys(outcome.fault.name for outcome in outcomes))
    rows = [_row(name, [o for o in outcomes if o.fault.name == name]) for name in sorted(names)]
    rows.append(_row("**all**", outcomes))
    lines = ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
