"""The speed of a node's kernels as measured: plain data, which travels and is kept on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from dllama.limits import MaxLength
from dllama.qtypes import QType


@dataclass(frozen=True, slots=True)
class TypeSpeed:
    """The products with weights of one type: of one row, which is bound by reading them, and of
    many rows. A multiplication and an addition are two operations."""

    qtype: QType
    read_gb_per_s: float
    multiply_gop_per_s: float
    expand_ns: float = 0.0  # of a weight, once for each group of many rows, beside the products


@dataclass(frozen=True, slots=True)
class KernelSpeeds:
    """The kernels of a node, with all threads that it computes with."""

    types: Annotated[list[TypeSpeed], MaxLength(64)]
    step_us: float  # of one row, apart from its half layers
    half_layer_us: float  # of one row, apart from its products and its attention
    vector_gvalue_per_s: float  # norms, activations, rotations
    attention_gop_per_s: float
    sum_gb_per_s: float  # partial sums that are encoded, and added up
    long_half_layer_us: float = 0.0  # of a group of a long step, apart from kernels

    @property
    def is_sound(self) -> bool:
        """Whether these figures can be: positive and finite, and of each type once."""
        some = [self.step_us, self.half_layer_us, self.vector_gvalue_per_s,
                self.attention_gop_per_s, self.sum_gb_per_s]  # fmt: skip
        for each in self.types:
            some += [each.read_gb_per_s, each.multiply_gop_per_s]
        any_ = [self.long_half_layer_us, *(each.expand_ns for each in self.types)]
        return (
            0 < len(self.types) == len({each.qtype for each in self.types})
            and all(0 < n < math.inf for n in some)
            and all(0 <= n < math.inf for n in any_)
        )

    def slowed(self, part: float) -> KernelSpeeds:
        """Returns the speeds of a node that has this part of its processors' time."""
        types = [
            TypeSpeed(
                each.qtype,
                each.read_gb_per_s * part,
                each.multiply_gop_per_s * part,
                each.expand_ns / part,
            )
            for each in self.types
        ]
        return KernelSpeeds(
            types, self.step_us / part, self.half_layer_us / part, self.vector_gvalue_per_s * part,
            self.attention_gop_per_s * part, self.sum_gb_per_s * part,
            self.long_half_layer_us / part,
        )  # fmt: skip

    def of(self, qtype: QType) -> TypeSpeed | None:
        """Returns the speed of a type; None where it was not measured."""
        return next((each for each in self.types if each.qtype is qtype), None)
