"""The features of AArch64 processors that LLVM does not ask the system for (as of LLVM 22): the
dot products. Without them it would neither emit these instructions nor take their intrinsics."""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Callable

# The kernel's bits of the auxiliary vector: uapi/linux/auxvec.h, uapi/asm/hwcap.h.
_HWCAP, _HWCAP2 = 16, 26
_ALWAYS = frozenset({"neon"})  # part of the architecture
_LINUX = {"dotprod": (_HWCAP, 1 << 20), "i8mm": (_HWCAP2, 1 << 13)}
_DARWIN = {
    "dotprod": b"hw.optional.arm.FEAT_DotProd",
    "i8mm": b"hw.optional.arm.FEAT_I8MM",
}


@functools.cache
def arm_features() -> frozenset[str]:
    """NEON and the dot products that this processor has, in LLVM's names; empty on other
    architectures."""
    if platform.machine().lower() not in ("aarch64", "arm64"):
        return frozenset()
    process = ctypes.CDLL(None)
    if sys.platform == "linux":
        process.getauxval.restype = ctypes.c_ulong
        process.getauxval.argtypes = [ctypes.c_ulong]
        return _ALWAYS | linux_features(process.getauxval)
    if sys.platform == "darwin":
        return _ALWAYS | darwin_features(lambda name: _sysctl(process, name))
    return _ALWAYS


def linux_features(entry: Callable[[int], int]) -> frozenset[str]:
    """The features that entries of the auxiliary vector, which `entry` returns by type, name."""
    return frozenset(name for name, (kind, bit) in _LINUX.items() if entry(kind) & bit)


def darwin_features(value: Callable[[bytes], int]) -> frozenset[str]:
    """The features whose sysctl, which `value` returns by name, is 1."""
    return frozenset(name for name, key in _DARWIN.items() if value(key) == 1)


def _sysctl(process: ctypes.CDLL, name: bytes) -> int:
    """An int of the system's; 0 where it has none of this name."""
    found, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    status = process.sysctlbyname(name, ctypes.byref(found), ctypes.byref(size), None, 0)
    return 0 if status else found.value
