"""What `transformers` computed for each case, written once: the configuration and the shapes that
it saved, and logits of some rows. Weights are seeded, so that nothing else is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.dllama.models.our_logits import Shift
from tests.dllama.models.seeded_weights import write_seeded

RECORDS = Path(__file__).with_name("transformers")
TOKENS = np.random.RandomState(1).randint(0, 128, 80).tolist()
N_PROMPT = 60
SHIFT = Shift(at=70, n_keep=5, n_drop=31)
ROWS = [0, 1, 13, 31, 59, 60, 69, 70, 79]
"""The first, those about windows of 12 and pages of 32, the ends of the prompt and before the
shift, and those that follow."""


def write_folder(name: str, folder: Path) -> Path:
    """Writes the case's folder as `save_pretrained` left it; returns it."""
    record = RECORDS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes((record / "config.json").read_bytes())
    write_seeded(folder, json.loads((record / "tensors.json").read_text()))
    return folder


def recorded_logits(name: str) -> np.ndarray:
    """Returns the logits (len(ROWS), vocab_size) that were recorded."""
    logits: np.ndarray = np.load(RECORDS / name / "logits.npy")
    return logits
