"""Runs arm64's Python on an emulated processor, in this checkout."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.arm64 import asking
from tests.arm64.compiler import compiler_for
from tests.arm64.pretence import Facts
from tests.arm64.sysroot import HOUSE, Sysroot

TELL_FACTS = (
    "import dataclasses, json; from tests.arm64.pretence import find_facts; "
    "print(json.dumps(dataclasses.asdict(find_facts())))"
)
COMMON = "fp asimd evtstrm crc32 cpuid"
OF_A76 = f"{COMMON} aes pmull sha1 sha2 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True, slots=True)
class Cpu:
    """A processor that qemu emulates, and what Linux says of it in /proc/cpuinfo: LLVM reads its
    name and some features there, and qemu before 8.1 shows the host's."""

    part: int  # of ARM's; 0 for none that LLVM knows
    features: str
    families: tuple[str, ...]  # that dllama finds there, best first

    def cpuinfo(self) -> str:
        """The text of /proc/cpuinfo."""
        return (
            f"processor\t: 0\nFeatures\t: {self.features}\n"
            f"CPU implementer\t: {0x41 if self.part else 0:#04x}\nCPU architecture: 8\n"
            f"CPU variant\t: 0x0\nCPU part\t: {self.part:#05x}\nCPU revision\t: 1\n\n"
        )


CPUS = {
    "max": Cpu(0, f"{OF_A76} sve sve2 i8mm bf16", ("i8mm", "dotprod", "neon", "generic")),
    "cortex-a76": Cpu(0xD0B, OF_A76, ("dotprod", "neon", "generic")),  # Raspberry Pi 5
    "cortex-a72": Cpu(0xD08, COMMON, ("neon", "generic")),  # Raspberry Pi 4
}


class Emulator:
    """One emulated processor. The machine code of kernels stays in the sysroot's folder."""

    def __init__(self, sysroot: Sysroot, cpu: str) -> None:
        self._sysroot, self._cpu = sysroot, cpu
        self._prefix = sysroot.folder / f"on-{cpu}"
        self.facts: Facts | None = None

    def run_module(
        self, module: str, *args: str, limit_s: float, folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Runs a module as `run` does; its kernels are compiled on this machine (compiler.py).
        `folder` is one for a socket."""
        if self.facts is None:
            self.facts = Facts(**json.loads(self.run("-c", TELL_FACTS, limit_s=limit_s).stdout))
        with TemporaryDirectory(dir=folder) as own:
            path = Path(own) / "compiler"
            with compiler_for(self.facts, path):
                words = ("-m", asking.__name__, str(path), module, *args)
                return self.run(*words, limit_s=limit_s)

    def run(self, *args: str, limit_s: float) -> subprocess.CompletedProcess[str]:
        """Runs Python with these arguments. Raises subprocess.TimeoutExpired after limit_s."""
        self._lay_out()
        packages = os.pathsep.join([str(self._sysroot.site), str(HOUSE)])
        command = [
            str(self._sysroot.emulator), "-L", str(self._prefix), "-cpu", self._cpu,
            str(self._sysroot.python), *args,
        ]  # fmt: skip
        environment = {
            "HOME": str(self._sysroot.folder / "home"), "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8", "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1",
            "DLLAMA_CACHE": str(self._sysroot.folder / f"kernels-{self._cpu}"),
        }  # fmt: skip
        return subprocess.run(
            command, env=environment, cwd=HOUSE, capture_output=True, text=True, timeout=limit_s,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _lay_out(self) -> None:
        """The folder that qemu looks into first: the system, with another /proc/cpuinfo."""
        proc = self._prefix / "proc"
        proc.mkdir(parents=True, exist_ok=True)
        (proc / "cpuinfo").write_text(CPUS[self._cpu].cpuinfo())
        for name in ("lib", "usr", "etc"):
            link, target = self._prefix / name, self._sysroot.root / name
            if not target.exists():  # newer systems have it in usr alone
                target = self._sysroot.root / "usr" / name
            if not link.is_symlink():
                link.symlink_to(target)
