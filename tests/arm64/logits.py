"""The logits of the model that comes with dllama, as a file: `python -m tests.arm64.logits FILE`.
Two processors that compute alike write the same bytes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.local_model import local_runner, make_step

PROMPT = [1, 300, 17, 256, 5, 84, 300, 299, 33, 150, 7, 61, 290, 12, 108, 44, 210, 3, 96, 181, 25]


def logits() -> np.ndarray:
    """The rows of a prompt and of two tokens after it, each with its own step."""
    with local_runner(DEFAULT_MODEL) as runner:
        rows = runner.run(make_step([(0, PROMPT, 0)], every_row=True))
        for i, token in enumerate((9, 270)):
            rows += runner.run(make_step([(0, [token], len(PROMPT) + i)]))
    return np.array([row.logits for row in rows])


if __name__ == "__main__":
    np.save(Path(sys.argv[1]), logits(), allow_pickle=False)
