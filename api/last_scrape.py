"""What the metrics were when they were asked for last."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class LastScrape:
    """Totals when the metrics were asked for last; rates are averages since then."""

    started_at: float = field(default_factory=time.time)
    prompt_tokens: int = 0
    prompt_s: float = 0.0
    predicted_tokens: int = 0
    predicted_s: float = 0.0
