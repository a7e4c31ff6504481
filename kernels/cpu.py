"""The processor's features, read once: an instruction it lacks would abort the process."""

from __future__ import annotations

import functools
import os
from typing import Any

import llvmlite.binding as llvm

from kernels.arm_features import arm_features

ISAS = ("avx512vnni", "avxvnni", "avx2", "i8mm", "dotprod", "neon", "generic")
"""Dot-product families, best first. `avxvnni` is the 256-bit form of AVX-512's dot product, which
later desktop processors have alone. AArch64 has three: `neon` is every one of them, `dotprod` those
with the dot product of four bytes, `i8mm` those that also multiply two rows by two at once."""

_NEEDS = {
    "avx512vnni": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "avxvnni": ("avxvnni", "avx2", "fma", "f16c"),
    "avx2": ("avx2", "fma", "f16c"),
    "i8mm": ("neon", "dotprod", "i8mm"),
    "dotprod": ("neon", "dotprod"),
    "neon": ("neon",),
    "generic": (),
}


_WIDE = ("avx512", "avx10", "amx")  # how the names of features begin that go with 512 bits


@functools.cache
def cpu_features() -> frozenset[str]:
    """The features of the host processor, in LLVM's names."""
    return frozenset(name for name, on in _host_features().items() if on)


def feature_flags() -> str:
    """The features that kernels are compiled for, as LLVM's code generators take them: those of the
    processor, of which DLLAMA_ISA may leave out the wide ones."""
    found = _host_features()
    if cpu_features().issuperset(_NEEDS["avx2"]) and not _is_wide(isa()):
        found.update({name: False for name in found if name.startswith(_WIDE)})
    return str(found.flatten())


def _is_wide(family: str) -> bool:
    """True for AVX-512, and for its 256-bit form where the processor has that as no other."""
    return family == "avx512vnni" or (family == "avxvnni" and "avxvnni" not in cpu_features())


def _host_features() -> Any:
    found = llvm.get_host_cpu_features()
    found.update(dict.fromkeys(arm_features(), True))
    return found


def available_isas() -> tuple[str, ...]:
    """The dot-product families this processor can run, best first."""
    return tuple(name for name in ISAS if _can_run(name))


def _can_run(name: str) -> bool:
    if name == "avxvnni" and _can_run("avx512vnni"):
        return True  # AVX-512 with its 256-bit forms has the same instruction
    return cpu_features().issuperset(_NEEDS[name])


@functools.cache
def isa() -> str:
    """The family in use: the best available one, or the one that DLLAMA_ISA names.

    Raises ValueError where the processor lacks the family that DLLAMA_ISA names.
    """
    wanted = os.environ.get("DLLAMA_ISA")
    if not wanted:
        return available_isas()[0]  # never empty: every processor runs the generic one
    if wanted not in available_isas():
        raise ValueError(
            f"DLLAMA_ISA is {wanted!r}, but this processor can run only: "
            f"{', '.join(available_isas())}; unset it or choose one of these"
        )
    return wanted


@functools.cache
def has_bf16_dot() -> bool:
    """True where one instruction adds two bfloat16 products a lane, and faster than two fma do:
    processors with AMX take twice as long for it."""
    features = cpu_features()
    return isa() == "avx512vnni" and "avx512bf16" in features and "amx-bf16" not in features


def cpu_name() -> str:
    """LLVM's name of the host processor, for reports."""
    return str(llvm.get_host_cpu_name())
