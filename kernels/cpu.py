"""The processor's features, read once: an instruction it lacks would abort the process."""

from __future__ import annotations

import functools
import os

import llvmlite.binding as llvm

ISAS = ("avx512vnni", "avxvnni", "avx2", "neon", "generic")
"""Dot-product families, best first. `avxvnni` is the 256-bit form of AVX-512's dot product, which
later desktop processors have alone; `neon` means AArch64 with the dot-product extension."""

_NEEDS = {
    "avx512vnni": ("avx512f", "avx512bw", "avx512vl", "avx512vnni"),
    "avxvnni": ("avxvnni", "avx2", "fma", "f16c"),
    "avx2": ("avx2", "fma", "f16c"),
    "neon": ("neon", "dotprod"),
    "generic": (),
}


@functools.cache
def cpu_features() -> frozenset[str]:
    """The features of the host processor, in LLVM's names."""
    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


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
    """True where one instruction adds two bfloat16 products a lane."""
    return isa() == "avx512vnni" and "avx512bf16" in cpu_features()


def cpu_name() -> str:
    """LLVM's name of the host processor, for reports."""
    return str(llvm.get_host_cpu_name())
