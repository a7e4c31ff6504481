"""Kernels are compiled for AArch64 on any machine, for whoever asks."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kernels.program import _stop
from tests.arm64.asking import Request, ask
from tests.arm64.compiler import compiler_for
from tests.arm64.pretence import Facts

FACTS = Facts("generic", {"neon": True, "dotprod": True}, ["neon", "dotprod"])
AARCH64 = 183  # EM_AARCH64 of elf.h


def test_a_kernel_is_compiled_for_another_processor(tmp_path: Path) -> None:
    path = tmp_path / "compiler"
    with compiler_for(FACTS, path):
        code = ask(path, Request("kernels.program", _stop.name, ()))
        with pytest.raises(RuntimeError, match="LookupError: no kernel is called"):
            ask(path, Request("kernels.program", "program.none", ()))
    (machine,) = struct.unpack_from("<H", code.object_code, 18)
    assert code.object_code.startswith(b"\x7fELF") and machine == AARCH64
