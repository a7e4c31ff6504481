"""Compiles kernels for a processor of AArch64 on this machine, for a program in the emulator: a
compiler that is emulated takes half an hour for one model."""

from __future__ import annotations

import gc
import importlib
import json
import pkgutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from io import BufferedRWPair
from pathlib import Path
from subprocess import PIPE, Popen

import kernels
from kernels.cache import Code
from kernels.emit.compile import compile_kernel
from kernels.formats import ALL_TYPES, format_of
from kernels.kernel import Kernel
from tests.arm64 import pretence
from tests.arm64.asking import Request, read_request, write_answer
from tests.arm64.pretence import Facts
from tests.arm64.sysroot import HOUSE

STOP_S = 60.0


class Kernels:
    """All kernels of this program, and those of other modules when they are asked for."""

    def __init__(self) -> None:
        for module in pkgutil.walk_packages(kernels.__path__, "kernels."):
            importlib.import_module(module.name)
        self._formats = [format_of(name) for name in ALL_TYPES]

    def compiled(self, request: Request) -> Code:
        """Returns the Code that is asked for. Raises LookupError where no kernel has this name."""
        importlib.import_module(request.module)
        for found in gc.get_objects():
            if type(found) is Kernel and found.name == request.name:  # proxies would raise
                return compile_kernel(found, request.kinds)
        raise LookupError(f"no kernel is called {request.name}")


def serve(path: str) -> None:
    """Answers one question a connection, for ever."""
    found = Kernels()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                _answer(found, stream)


def _answer(found: Kernels, stream: BufferedRWPair) -> None:
    request = read_request(stream)
    try:
        write_answer(stream, found.compiled(request))
    except (LookupError, TypeError) as error:
        write_answer(stream, f"{type(error).__name__}: {error}")


@contextmanager
def compiler_for(facts: Facts, socket_path: Path) -> Iterator[None]:
    """Runs a compiler for a processor while the context lasts; it listens at this path."""
    command = [
        sys.executable,
        "-m",
        pretence.__name__,
        str(socket_path),
        json.dumps(asdict(facts)),
    ]
    with Popen(command, cwd=HOUSE, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                raise OSError("the compiler for AArch64 has ended; its own words are above")
            yield
        finally:
            process.stdin.close()
            process.wait(STOP_S)
