"""The types that floats can be encoded in: one row each. A module is imported, and its kernels are
compiled, when one of its types is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

MODULES = {
    "q4_0": "simple",
    "q4_1": "simple",
    "q5_0": "simple",
    "q5_1": "simple",
    "q8_0": "simple",
    "q2_k": "with_minima",
    "q3_k": "signed",
    "q4_k": "with_minima",
    "q5_k": "with_minima",
    "q6_k": "signed",
    "iq4_nl": "tabled",
    "iq4_xs": "tabled",
    "mxfp4": "tabled",
}
"""By the type: the module of this package that has its kernel in ENCODE."""


def encoding_of(name: str) -> Any:
    """The kernel that encodes a type; see tiles.encoding_kernel."""
    return import_module(f"kernels.encoding.{MODULES[name]}").ENCODE[name]
