"""Object code made callable, by LLVM's own loader."""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm

from kernels.cache import Code
from kernels.cpu import feature_flags

ENTRY = "dllama_entry"

_loaded: list[Any] = []  # code lives as long as its engine


@cache
def _started() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target_machine() -> Any:
    """LLVM's code generator for this processor."""
    _started()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=feature_flags(),
        opt=3,
        jit=True,
    )


def load(code: Code) -> int:
    """The address of the entry of a kernel's object code."""
    _started()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_code))
    engine.finalize_object()
    _loaded.append(engine)
    return int(engine.get_function_address(ENTRY))
