"""Machines made of Linux namespaces: each has its own network, process ids and boot id, so that no
memory is shared between them and everything goes over links that can be broken.

Nothing of them has a name in the file system: they are gone with the processes that hold them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from shutil import which

import psutil

from benchmarks.lan.carrier import Carrier
from benchmarks.lan.packets import DEVICE, address
from benchmarks.lan.wire import LinkRule

HOUSE = Path(__file__).parents[2]
MTU = 16_000  # few packets for a step: one Python process carries them all
CACHE_MB = 64
WAIT_S = 20.0


def why_no_machines() -> str | None:
    """Returns why no machines can be made here; None if they can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "namespaces need Linux and root"
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if which(tool) is None:
            return f"namespaces need the command {tool}"
    if not Path("/dev/net/tun").exists():
        return "namespaces need /dev/net/tun"
    trial = subprocess.run(
        ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if trial.returncode == 0 else f"namespaces are refused: {trial.stderr.strip()}"


class Machine:
    """The namespaces of one machine, held open by a process that does nothing."""

    def __init__(self, number: int, folder: Path, environment: dict[str, str]) -> None:
        self.number = number
        self.address = address(number)
        boot_id = folder / "boot_id"
        boot_id.write_text(f"{uuid.uuid4()}\n")
        script = (
            f"mount --bind {boot_id} /proc/sys/kernel/random/boot_id && ip link set lo up "
            "&& echo ready && exec cat"  # until stdin is closed, and so not longer than we live
        )
        self._unshare = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._unshare.stdout is not None
        assert self._unshare.stdout.readline() == "ready\n", "the namespaces cannot be made"
        [holder] = psutil.Process(self._unshare.pid).children()
        self.pid = holder.pid

    @property
    def prefix(self) -> list[str]:
        """What comes before a command that is to run on this machine."""
        return ["nsenter", "-t", str(self.pid), "-n", "-p", "-m", "--"]

    def run(self, *command: str) -> None:
        """Runs a command on this machine. Raises CalledProcessError."""
        subprocess.run([*self.prefix, *command], check=True, capture_output=True, timeout=WAIT_S)

    def mount_small_disk(self, folder: Path) -> None:
        """Puts a small disk there, which only this machine sees and which ends with it."""
        self.run("mount", "-t", "tmpfs", "-o", f"size={CACHE_MB}m", "tmpfs", str(folder))

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait()
        for pipe in (self._unshare.stdin, self._unshare.stdout):
            assert pipe is not None
            pipe.close()


class Network:
    """The machines 1 to n, and the process that carries their packets."""

    def __init__(self, n: int, folder: Path, environment: dict[str, str]) -> None:
        self.machines: dict[int, Machine] = {}
        for number in range(1, n + 1):
            own = folder / f"machine-{number}"
            own.mkdir()
            self.machines[number] = Machine(number, own, environment)
        self._carrier = Carrier(
            {number: f"/proc/{machine.pid}/ns/net" for number, machine in self.machines.items()}
        )
        for machine in self.machines.values():
            machine.run("ip", "addr", "add", f"{machine.address}/24", "dev", DEVICE)
            machine.run("ip", "link", "set", DEVICE, "mtu", str(MTU), "up")

    def set_way(self, sender: int, receiver: int, rule: LinkRule) -> None:
        """Makes one way of a link good or bad."""
        self._carrier.set_way(sender, receiver, rule)

    def set_links_of(self, number: int, to_it: LinkRule, from_it: LinkRule) -> None:
        """Makes all links of a machine good or bad."""
        for other in self.machines:
            if other != number:
                self.set_way(number, other, from_it)
                self.set_way(other, number, to_it)

    def carried_bytes(self) -> int:
        """Returns the bytes of all packets that arrived so far."""
        return self._carrier.carried_bytes()

    def close(self) -> None:
        try:
            self._carrier.close()
        finally:
            for machine in self.machines.values():
                machine.close()
