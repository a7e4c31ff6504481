"""Questions to the compiler for AArch64 (compiler.py), and who asks them: a program in the emulator
whose kernels are compiled outside of it.

    python -m tests.arm64.asking SOCKET MODULE ARGS...     # as python -m MODULE ARGS...
"""

from __future__ import annotations

import json
import runpy
import socket
import struct
import sys
from io import BufferedRWPair
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from kernels.cache import Code
from kernels.kernel import Kernel, Kinds

_HEAD = struct.Struct("<?II")  # has_result, the lengths of the object code and of an error
MAX_BYTES = 64 << 20


class Request(NamedTuple):
    """A kernel for arguments of some kinds."""

    module: str
    name: str
    kinds: Kinds


def read_request(stream: BufferedRWPair) -> Request:
    module, name, kinds = json.loads(stream.readline())
    return Request(module, name, _as_tuples(kinds))


def write_answer(stream: BufferedRWPair, answer: Code | str) -> None:
    """Writes machine code, or an error's words."""
    code, error = (Code(b"", False), answer) if isinstance(answer, str) else (answer, "")
    words = error.encode()
    stream.write(_HEAD.pack(code.has_result, len(code.object_code), len(words)))
    stream.write(code.object_code + words)


def ask(path: Path, request: Request) -> Code:
    """Returns the code of a kernel. Raises RuntimeError with the compiler's words."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            has_result, *lengths = _HEAD.unpack(stream.read(_HEAD.size))
            assert sum(lengths) <= MAX_BYTES
            object_code, words = (stream.read(n) for n in lengths)
    if words:
        raise RuntimeError(f"{request.name} was not compiled: {words.decode()}")
    return Code(object_code, has_result)


def _as_tuples(kinds: Any) -> Any:
    return tuple(_as_tuples(item) for item in kinds) if isinstance(kinds, list) else kinds


def compile_at(path: Path) -> None:
    """Makes the compiler at this path compile the kernels of this process."""

    def compile_kernel(kernel: Kernel, kinds: Kinds) -> Code:
        return ask(path, Request(kernel.py_func.__module__, kernel.name, kinds))

    stand_in: Any = ModuleType("kernels.emit.compile")
    stand_in.compile_kernel = compile_kernel
    sys.modules["kernels.emit.compile"] = stand_in


def main() -> None:
    path, module = sys.argv[1:3]
    compile_at(Path(path))
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
