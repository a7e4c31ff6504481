"""A process that carries IP packets between machines made of namespaces, well or badly.

Each machine has one TUN device; the kernel gives its packets to this process, which hands them to
the device of the machine they are for. So every port and every connection between two machines can
be cut, one way or both, delayed, slowed down or made to lose packets, and TCP does what it does on
a real network.

    python -m benchmarks.lan.packets 1=/proc/PID/ns/net 2=/run/netns/NAME ...    # a namespace each

Commands come as JSON lines on stdin, each answered by one line: `{"from": 1, "to": 2, "rule":
{"loss": 0.05}}` changes a link, `{}` only asks. The answer holds the bytes carried so far. The
process ends with its stdin.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

from benchmarks.lan.wire import LinkRule, Wire

NETWORK = "10.77.0."  # machine k is 10.77.0.k
DEVICE = "tun0"
MAX_PACKET = 65_536
AT_ONCE = 64  # packets read from one device before the others have their turn
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_CLONE_NEWNET = 0x40000000


def address(number: int) -> str:
    """Returns the address of a machine."""
    return f"{NETWORK}{number}"


def open_device(namespace: str) -> int:
    """Returns the descriptor of a new TUN device in a network namespace, which is named by its
    file."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    theirs = os.open(namespace, os.O_RDONLY)
    try:
        if libc.setns(theirs, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH14x", DEVICE.encode(), _IFF_TUN_NO_PI))
        libc.setns(own, _CLONE_NEWNET)
    finally:
        os.close(own)
        os.close(theirs)
    return device


class Hub:
    """The machines' devices, and a wire for each way between two of them."""

    def __init__(self, devices: dict[int, int]) -> None:
        self._devices = devices
        self._wires = {(a, b): Wire() for a in devices for b in devices if a != b}
        self._waiting: list[tuple[float, int, int, bytes]] = []  # due, count, device, packet
        self._n_delayed = 0
        self.carried_bytes = 0

    def obey(self, line: str) -> str:
        """Follows a command and returns the answer."""
        command = json.loads(line)
        if "rule" in command:
            self._wires[command["from"], command["to"]].rule = LinkRule(**command["rule"])
        return json.dumps({"carried_bytes": self.carried_bytes})

    def serve(self) -> None:
        """Carries packets until stdin is closed."""
        numbers = {device: number for number, device in self._devices.items()}
        readable = (sys.stdin.fileno(), *numbers)
        while True:
            # poll and epoll wait for whole milliseconds, select for microseconds.
            for ready in select.select(readable, (), (), self._patience_s())[0]:
                if ready in numbers:
                    self._carry_from(numbers[ready], ready)
                    continue
                line = sys.stdin.readline()
                if not line:
                    return
                print(self.obey(line), flush=True)
            self._deliver_due()

    def _patience_s(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] - time.monotonic())

    def _carry_from(self, sender: int, device: int) -> None:
        for _ in range(AT_ONCE):
            try:
                packet = os.read(device, MAX_PACKET)
            except BlockingIOError:
                return
            if len(packet) < 20 or packet[0] >> 4 != 4:
                continue  # IPv6's greetings
            receiver = packet[19]  # the last byte of the address it is for
            wire = self._wires.get((sender, receiver))
            if wire is None or packet[16:19] != bytes((10, 77, 0)):
                continue
            now_s = time.monotonic()
            due_s = wire.due_s(now_s, len(packet), random.random(), random.random())
            if due_s is None:
                continue
            if due_s <= now_s:
                self._hand_over(self._devices[receiver], packet)
            else:
                self._n_delayed += 1
                item = (due_s, self._n_delayed, self._devices[receiver], packet)
                heapq.heappush(self._waiting, item)

    def _deliver_due(self) -> None:
        now_s = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, device, packet = heapq.heappop(self._waiting)
            self._hand_over(device, packet)

    def _hand_over(self, device: int, packet: bytes) -> None:
        try:
            os.write(device, packet)
        except OSError:
            return  # no room, or the machine is gone: a packet is lost
        self.carried_bytes += len(packet)


def main() -> None:
    namespaces = dict(part.split("=") for part in sys.argv[1:])
    hub = Hub({int(number): open_device(name) for number, name in namespaces.items()})
    print("ready", flush=True)
    hub.serve()


if __name__ == "__main__":
    main()
