"""Machines of a benchmark: network namespaces, every link with a rate of its own and, if wanted, a
delay.

Needs Linux, root and iproute2. Without a delay the machines' links meet on a bridge, and the kernel
does everything. With one, their packets pass through a process of ours, as not every kernel has
netem. Nothing is left of them afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

from benchmarks.lan import packets
from benchmarks.lan.carrier import Carrier
from benchmarks.lan.wire import LinkRule
from dllama.cli.terminal.ending import in_order

SUBNET = "10.87.0"
FAST_MBIT = 1000  # from here on packets of the kernel's segmentation offload pass as they are,
FAST_BURST_BYTES = 128 << 10  # which have up to 64 KiB: to cut them would cost the nodes' cores
SLOW_BURST_BYTES = 1600  # one packet, as on a cable: there are few
DELAYED_MTU = 16_000  # few packets for a step: one Python process carries them all


def why_no_namespaces() -> str | None:
    """Returns why no machines can be made here, after a trial; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "taskset", "nsenter"):
        if shutil.which(tool) is None:
            return f"network namespaces need the command {tool} (Debian: iproute2, util-linux)"
    try:
        with lan_of(1, 1000):
            return None
    except subprocess.CalledProcessError as error:
        said = bytes(error.stderr or b"").decode(errors="replace").strip()
        return f"network namespaces are refused: {' '.join(error.cmd)}: {said}"


@contextmanager
def lan_of(n: int, rate_mbit: float, delay_ms: float = 0.0) -> Iterator[Lan]:
    """Yields `n` machines, 0 to n - 1, each with a link of `rate_mbit` in both directions. What one
    sends to another arrives `delay_ms` later. Nothing is left of them afterwards, nor where this
    process is told to end."""
    lan = Lan(n, rate_mbit, delay_ms)
    with in_order():
        try:
            lan.open()
            yield lan
        finally:
            lan.close()


class Lan:
    """The machines that `lan_of` yields."""

    def __init__(self, n: int, rate_mbit: float, delay_ms: float) -> None:
        self._tag = f"dl{os.getpid()}"
        self.hub = f"{self._tag}-hub"
        self.names = [f"{self._tag}-{i}" for i in range(n)]
        self._rate_mbit = rate_mbit
        self._delay_ms = delay_ms
        self._device = packets.DEVICE if delay_ms else "eth0"
        self._carrier: Carrier | None = None

    def open(self) -> None:
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        if self._delay_ms:
            self._join_by_carrier()
        else:
            self._join_by_bridge()

    def _join_by_bridge(self) -> None:
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "bridge", "type", "bridge")
        _ip("-n", self.hub, "link", "set", "bridge", "up")
        for i, name in enumerate(self.names):
            _ip("link", "add", self._device, "netns", name, "type", "veth", "peer", "name",
                f"port{i}", "netns", self.hub)  # fmt: skip
            _ip("-n", self.hub, "link", "set", f"port{i}", "master", "bridge", "up")
            self._set_up_device(i)
            self._limit_rate(self.hub, f"port{i}")

    def _join_by_carrier(self) -> None:
        spaces = {i + 1: f"/run/netns/{name}" for i, name in enumerate(self.names)}
        self._carrier = Carrier(spaces)
        os.setpriority(os.PRIO_PROCESS, self._carrier.pid, -10)  # else it waits for who computes
        for i in range(len(self.names)):
            self._set_up_device(i, "mtu", str(DELAYED_MTU))
        for sender, receiver in permutations(spaces, 2):
            self._carrier.set_way(sender, receiver, LinkRule(delay_s=self._delay_ms / 1e3))

    def _set_up_device(self, i: int, *more: str) -> None:
        name = self.names[i]
        _ip("-n", name, "addr", "add", f"{self.address(i)}/24", "dev", self._device)
        _ip("-n", name, "link", "set", self._device, *more, "up")
        self._limit_rate(name, self._device)

    def _limit_rate(self, space: str, device: str) -> None:
        subprocess.run(
            ["tc", "-n", space, "qdisc", "add", "dev", device, "root", "tbf", "rate",
             f"{self._rate_mbit}mbit", "burst", str(burst_bytes(self._rate_mbit, self._delay_ms)),
             "latency", "100ms"],
            check=True, capture_output=True,
        )  # fmt: skip

    def address(self, i: int) -> str:
        """Returns the address of a machine."""
        return packets.address(i + 1) if self._delay_ms else f"{SUBNET}.{i + 1}"

    def command(self, i: int, command: Sequence[str], cores: Sequence[int] = ()) -> list[str]:
        """Returns a command as machine `i` runs it, on these cores if any are given.

        `ip netns exec` would mount another /sys, without the control groups that limit a node.
        """
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        return ["nsenter", f"--net=/run/netns/{self.names[i]}", *pinned, *command]

    def sent_bytes(self, i: int) -> int:
        """Returns the bytes that machine `i` has sent so far, headers included."""
        words = ["ip", "-n", self.names[i], "-s", "-j", "link", "show", "dev", self._device]
        [device] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return int(device["stats64"]["tx"]["bytes"])

    def close(self) -> None:
        try:
            if self._carrier is not None:
                self._carrier.close()
        finally:
            for name in (*self.names, self.hub):
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def burst_bytes(rate_mbit: float, delay_ms: float) -> int:
    """Returns the bytes that a link lets pass at once."""
    if rate_mbit >= FAST_MBIT:
        return FAST_BURST_BYTES
    return DELAYED_MTU + 100 if delay_ms else SLOW_BURST_BYTES


def await_listening(pid: int, port: int, within_s: float) -> None:
    """Waits until a port is listened to in the network namespace of a process. Raises TimeoutError
    where it is not in time."""
    until_s = time.monotonic() + within_s
    while not is_listening(pid, port):
        if time.monotonic() > until_s:
            raise TimeoutError(f"nothing listens to port {port} after {within_s:g} s")
        time.sleep(0.02)


def is_listening(pid: int, port: int) -> bool:
    """Returns whether a TCP port is listened to in the network namespace of a process."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue  # it has ended
        for line in lines:
            local, _, state = line.split()[1:4]
            if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


def _ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True, capture_output=True)
