"""Types of weights that are made as others are (IQ3_S, TQ1_0, Q4_0): the kernels of each compile
for seconds, so that only `make test-all` tests them all."""

from __future__ import annotations

import os

ALIKE = frozenset(
    ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "TQ2_0", "Q1_0", "Q2_0", "NVFP4")
)

IS_ALL = os.environ.get("DLLAMA_TESTS") == "all"
"""Whether this is `make test-all`."""


def is_tested(name: str) -> bool:
    """Whether a type, by its name in either case, is tested in this run."""
    return IS_ALL or name.upper() not in ALIKE
