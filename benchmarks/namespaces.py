"""Machines of a benchmark: network namespaces on one bridge, every link with a rate of its own.

Needs Linux, root and iproute2. Nothing is left when `Lan.close` has run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

SUBNET = "10.87.0"
BURST_BYTES = 128 << 10  # a packet of the kernel's segmentation offload has up to 64 KiB


def why_no_namespaces() -> str | None:
    """Returns why no namespaces can be made here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        for tool in (["ip", "-V"], ["tc", "-V"]):
            subprocess.run(tool, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "network namespaces need the commands ip and tc (iproute2)"
    return None


class Lan:
    """`n` machines, 0 to n - 1, each with an address of 10.87.0.0/24 and a link of `rate_mbit`
    in both directions."""

    def __init__(self, n: int, rate_mbit: float) -> None:
        self._tag = f"dl{os.getpid()}"
        self.hub = f"{self._tag}-hub"
        self.names = [f"{self._tag}-{i}" for i in range(n)]
        self._rate_mbit = rate_mbit

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> None:
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.hub, "link", "set", "bridge", "up")
        for i, name in enumerate(self.names):
            _ip("netns", "add", name)
            _ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", f"port{i}",
                "netns", self.hub)  # fmt: skip
            _ip("-n", self.hub, "link", "set", f"port{i}", "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{self.address(i)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            for space, device in ((name, "eth0"), (self.hub, f"port{i}")):
                subprocess.run(
                    ["tc", "-n", space, "qdisc", "add", "dev", device, "root", "tbf", "rate",
                     f"{self._rate_mbit}mbit", "burst", str(BURST_BYTES), "latency", "100ms"],
                    check=True, capture_output=True,
                )  # fmt: skip

    def address(self, i: int) -> str:
        """Returns the address of a machine."""
        return f"{SUBNET}.{i + 1}"

    def command(self, i: int, command: Sequence[str], core: int | None = None) -> list[str]:
        """Returns a command as machine `i` runs it, on one core if it is given."""
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        return ["ip", "netns", "exec", self.names[i], *pinned, *command]

    def sent_bytes(self, i: int) -> int:
        """Returns the bytes that machine `i` has sent so far, headers included."""
        path = "/sys/class/net/eth0/statistics/tx_bytes"
        read = subprocess.run(self.command(i, ["cat", path]), check=True, capture_output=True)
        return int(read.stdout)

    def close(self) -> None:
        for name in (*self.names, self.hub):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
