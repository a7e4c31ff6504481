"""The dot products of AArch64 processors are found where LLVM does not look for them."""

from __future__ import annotations

from kernels.arm_features import darwin_features, linux_features

# Entries 16 and 26 of the auxiliary vector.
PI_4 = {16: 0x8FB, 26: 0}
PI_5 = {16: 0x119FFB, 26: 0}
NEOVERSE_V1 = {16: 0x7FFFFFFF, 26: (1 << 13) | (1 << 14)}
WITH_BF16 = {16: 0x119FFB, 26: 1 << 14}


def test_linux_names_them_in_the_auxiliary_vector() -> None:
    assert linux_features(PI_4.__getitem__) == frozenset()
    assert linux_features(PI_5.__getitem__) == {"dotprod"}
    assert linux_features(WITH_BF16.__getitem__) == {"dotprod"}
    assert linux_features(NEOVERSE_V1.__getitem__) == {"dotprod", "i8mm"}


def test_macos_names_them_by_sysctl() -> None:
    m1 = {b"hw.optional.arm.FEAT_DotProd": 1}
    assert darwin_features(lambda name: m1.get(name, 0)) == {"dotprod"}
    m2 = {**m1, b"hw.optional.arm.FEAT_I8MM": 1}
    assert darwin_features(lambda name: m2.get(name, 0)) == {"dotprod", "i8mm"}
