"""LLVM code of functions that numba compiles, until it becomes machine code as a part of a kernel.

numba by itself optimises each function together with all that it calls, and makes machine code of
that: what a kernel calls would be compiled again at each step on the way up to it. Here functions
keep their code as it was emitted. A kernel's code is put together, optimised and compiled once, and
nothing in it but its entry has a name that another kernel could know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target


class Piece(JITCodeLibrary):
    """The code of one function, as it was emitted. numba calls the methods."""

    def add_llvm_module(self, module: Any) -> None:
        self._final_module.link_in(module)

    def finalize(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """Returns 0: Python calls no piece."""
        return 0

    def whole(self) -> Any:
        """A module of this code and of all that it calls."""
        found: dict[Piece, None] = {}
        waiting = [self]
        while waiting:
            piece = waiting.pop()
            if piece not in found and isinstance(piece, Piece):  # numba's run time is none
                found[piece] = None
                waiting += piece._linking_libraries
        module = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
        for piece in found:
            module.link_in(piece._final_module, preserve=True)
        return module


class Pieces(JITCPUCodegen):
    """Where numba puts the code of what it compiles."""

    _library_class = Piece

    def set_env(self, name: str, env: Any) -> None:
        """Does nothing: what numba keeps for errors and objects is in no kernel."""

    def optimise(self, module: Any) -> None:
        """Optimises a module, with the passes that numba uses."""
        passes, builder = self._module_pass_manager()
        passes.run(module, builder)


_pieces: list[Pieces] = []


@contextmanager
def compiling_pieces() -> Iterator[Pieces]:
    """A context in which what numba compiles becomes pieces."""
    with global_compiler_lock:
        context = cpu_target.target_context
        context.refresh()
        if not _pieces:
            _pieces.append(Pieces("dllama"))
        numbas, context._internal_codegen = context._internal_codegen, _pieces[0]
        try:
            yield _pieces[0]
        finally:
            context._internal_codegen = numbas
