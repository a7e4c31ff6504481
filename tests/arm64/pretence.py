"""Makes this machine look like a processor of AArch64 to llvmlite, and so to numba and dllama, and
compiles kernels for whoever asks at a socket. Nothing of what is compiled can run here.

    python -m tests.arm64.pretence SOCKET FACTS     # serves until stdin is closed

FACTS is what `Facts` holds of the processor, as JSON. This module imports no kernels before it has
made its pretence, as they look at the processor when they are imported.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

TRIPLE = "aarch64-unknown-linux-gnu"


@dataclass(frozen=True, slots=True)
class Facts:
    """What LLVM and dllama find on a processor."""

    cpu: str
    features: dict[str, bool]
    arm_features: list[str]


def find_facts() -> Facts:
    """Returns the facts of the processor that this runs on."""
    from kernels.arm_features import arm_features

    features = llvm.get_host_cpu_features()
    return Facts(llvm.get_host_cpu_name(), dict(features), sorted(arm_features()))


def pretend(facts: Facts) -> None:
    """Makes llvmlite, and so numba and dllama, take this machine for another one; before either is
    imported."""
    binding: Any = llvm
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    binding.get_process_triple = lambda: TRIPLE
    binding.get_host_cpu_name = lambda: facts.cpu
    binding.get_host_cpu_features = lambda: _feature_map(facts.features)
    binding.Target.from_default_triple = classmethod(lambda cls: cls.from_triple(TRIPLE))
    platform.machine = lambda: "aarch64"
    import kernels.arm_features as asked

    asked.arm_features = lambda: frozenset(facts.arm_features)  # type: ignore[assignment]


def _feature_map(features: dict[str, bool]) -> Any:
    found = llvm.targets.FeatureMap()
    found.update(features)
    return found


def main() -> None:
    path, facts = sys.argv[1:]
    pretend(Facts(**json.loads(facts)))
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    from tests.arm64.compiler import serve

    serve(path)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
