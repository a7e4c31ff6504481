"""What keys and values are kept as."""

from __future__ import annotations

from enum import StrEnum


class KvType(StrEnum):
    """Named as in the file formats; see kernels.attention.kv_pages."""

    F16 = "f16"
    Q8_0 = "q8_0"  # blocks of 32 with one scale: 0.53 of the memory
