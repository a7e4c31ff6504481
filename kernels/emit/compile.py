"""Compiles kernels: the only module that asks numba for machine code.

numba compiles the function; a small function beside it, emitted here, takes the arguments from
their slots (see kernels.kernel) and hands them over as numba's functions want them.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import config, types
from numba.core.errors import NumbaError
from numba.core.registry import cpu_target
from numba.core.types.containers import BaseTuple
from numba.core.typing.typeof import typeof_impl
from numba.np.numpy_support import from_dtype

from kernels.arm_features import arm_features
from kernels.cache import Code
from kernels.cpu import available_isas, feature_flags, isa
from kernels.emit.jit import LEAN, Intrinsic, Jitted
from kernels.emit.pieces import compiling_pieces
from kernels.emit.vectors import I8, I32, I64
from kernels.machine_code import ENTRY, target_machine

if TYPE_CHECKING:
    from kernels.kernel import Kernel, Kinds

SLOT = 8  # bytes
_PROCESS = ctypes.CDLL(None)

if arm_features() or isa() != available_isas()[0]:  # numba would ask LLVM alone for all there is
    config.CPU_FEATURES = feature_flags()


@typeof_impl.register(Jitted)
def _type_of_jitted(value: Jitted, context: Any) -> Any:
    return types.Dispatcher(value.dispatcher)


@typeof_impl.register(Intrinsic)
def _type_of_intrinsic(value: Intrinsic, context: Any) -> Any:
    found = value.numbas
    cpu_target.typing_context.refresh()  # it may have been registered this very moment
    return cpu_target.typing_context.resolve_value_type(found)


def compile_kernel(kernel: Kernel, kinds: Kinds) -> Code:
    """The machine code of a kernel for arguments of these kinds. Raises TypeError where it does
    what a kernel may not."""
    signature = tuple(_type_of(kind) for kind in kinds)
    with compiling_pieces() as pieces:
        dispatcher = njit(**LEAN, **kernel.options)(kernel.py_func)
        try:
            dispatcher.compile(signature)
        except NumbaError as error:
            raise TypeError(
                f"the kernel {kernel.name} does what no kernel may, such as one that allocates an "
                f"array or returns one from a function: {error}"
            ) from error
        found = dispatcher.overloads[signature]
        has_result = _has_result(kernel.name, found.signature.return_type)
        module = found.library.whole()
        module.link_in(_entry(found, has_result))
        for function in module.functions:
            if not function.is_declaration and function.name != ENTRY:
                function.linkage = "internal"
        pieces.optimise(module)
    _check(kernel.name, module)
    return Code(bytes(target_machine().emit_object(module)), has_result)


def _type_of(kind: Any) -> Any:
    """numba's type of an argument."""
    if isinstance(kind, tuple):
        return BaseTuple.from_types([_type_of(item) for item in kind])
    if len(kind) == 1:
        return from_dtype(np.dtype(kind))
    dtype, is_aligned = from_dtype(np.dtype(kind[0])), kind[-1] != "U"
    return types.Array(dtype, int(kind[1:-1]), kind[-1] if is_aligned else "A", aligned=is_aligned)


def _has_result(name: str, kind: Any) -> bool:
    if kind not in (types.none, types.int64):
        raise TypeError(f"the kernel {name} returns {kind}, not an int64")
    return bool(kind == types.int64)


def _check(name: str, module: Any) -> None:
    """Raises TypeError where the code would call what only numba has: memory, errors, objects."""
    for function in module.functions:
        outside = function.name
        if not function.is_declaration or outside.startswith("llvm."):
            continue
        if outside.startswith(("NRT_", "Py", "numba_")) or not hasattr(_PROCESS, outside):
            raise TypeError(
                f"the kernel {name} calls {outside}: it allocates an array, or does what can "
                "raise an error (an assignment of a slice, reshape); write it as a loop"
            )
    for variable in module.global_variables:
        if "dynamic.globals" in variable.name:
            raise TypeError(f"the kernel {name} holds the address of an object of this process")


def _entry(found: Any, has_result: bool) -> Any:
    """A module with `i32 dllama_entry(slots)`, which calls the compiled function with the arguments
    of its slots, writes a result to the first, and returns the function's status."""
    convention, signature = found.target_context.call_conv, found.signature
    kind = convention.get_function_type(signature.return_type, signature.args)
    module = ir.Module("entry")
    module.triple = llvm.get_process_triple()
    called = ir.Function(module, kind, found.fndesc.llvm_func_name)
    slots_kind = ir.FunctionType(I32, [I8.as_pointer()])
    entry = ir.Function(module, slots_kind, ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block("entry"))

    def slot(i: int, kind: Any) -> Any:
        where = builder.gep(entry.args[0], [ir.Constant(I64, SLOT * i)])
        return builder.bitcast(where, kind.as_pointer())

    place, excuse = kind.args[:2]
    result, error = builder.alloca(I64), builder.alloca(I64)
    args = [builder.load(slot(1 + i, arg)) for i, arg in enumerate(kind.args[2:])]
    status = builder.call(
        called, [builder.bitcast(result, place), builder.bitcast(error, excuse), *args]
    )
    if has_result:
        builder.store(builder.load(result), slot(0, I64))
    builder.ret(status)
    return llvm.parse_assembly(str(module))
