"""The number types there are kernels for: one row each.

A quant type is a module of this package with a FORMAT: the layout of its blocks, how they are read
and unpacked, and the kernels made for it. The three plain number types share `floats`. A type's
module is imported when the type is first asked for.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernels.weights.format import Format

FLOAT_TYPES = ("f32", "f16", "bf16")

QUANT_TYPES = (
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
    "iq1_s",
    "iq1_m",
    "iq2_xxs",
    "iq2_xs",
    "iq2_s",
    "iq3_xxs",
    "iq3_s",
    "iq4_nl",
    "iq4_xs",
    "mxfp4",
    "nvfp4",
    "q1_0",
    "q2_0",
    "tq1_0",
    "tq2_0",
)

ALL_TYPES = (*FLOAT_TYPES, *QUANT_TYPES)


@cache
def format_of(name: str) -> Format:
    """The layout and the kernels of a type."""
    if name in FLOAT_TYPES:
        from kernels.formats.floats import FORMATS

        return FORMATS[name]
    found: Format = import_module(f"kernels.formats.{name}").FORMAT
    return found
