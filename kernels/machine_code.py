"""Object code made callable, by LLVM's own loader."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from kernels.cache import Code
from kernels.cpu import feature_flags

ENTRY = "dllama_entry"

# numba counts references even where there is nothing to count: what would free an array stands in
# the code, and is never reached, since the arrays of a kernel have no owner.
NEVER_CALLED = "NRT_MemInfo_call_dtor"

_loaded: list[Any] = []  # code lives as long as its engine


@cache
def _started() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    llvm.add_symbol(NEVER_CALLED, abort)


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
    for part in code.objects:
        engine.add_object_file(llvm.ObjectFileRef.from_data(part))
    engine.finalize_object()
    _loaded.append(engine)
    return int(engine.get_function_address(ENTRY))
