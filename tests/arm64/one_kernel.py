"""Compiles one kernel, without reading or writing the cache, and prints a digest of its machine
code: `python -m tests.arm64.one_kernel`."""

from __future__ import annotations

import hashlib

import llvmlite.binding as llvm
import numpy as np

from kernels.activations import _gather_rows
from kernels.kernel import kind_of


def main() -> None:
    rows, picked = np.zeros((2, 16), np.float32), np.zeros(1, np.int32)
    kinds = tuple(kind_of(value) for value in (rows, picked, rows))
    from kernels.emit.compile import compile_kernel

    code = compile_kernel(_gather_rows, kinds)
    for section in llvm.ObjectFileRef.from_data(code.object_code).sections():
        if section.is_text():
            data = section.data()
            print(f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
