"""The storage types of keys and values. Imports nothing: flags name them."""

from __future__ import annotations

from enum import StrEnum


class KvType(StrEnum):
    """Storage types of keys and values, named as in file formats; see
    kernels.attention.kv_pages."""

    F16 = "f16"
    Q8_0 = "q8_0"  # blocks of 32 with one scale: 0.53 of the memory
    F32 = "f32"  # as they are computed: twice the memory
