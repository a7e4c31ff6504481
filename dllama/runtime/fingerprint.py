"""What tells one model from another without reading all of it."""

from __future__ import annotations

import hashlib

from dllama.weight_source import WeightSource

_SAMPLED_ROWS = 4


def model_fingerprint(source: WeightSource, cut: str) -> bytes:
    """32 bytes that depend on the model's config, on its tensors' shapes and types, on the first
    rows of each, and on how it is cut over ranks (`cut` in words of the caller)."""
    digest = hashlib.blake2b(f"{source.config!r}|{cut}".encode(), digest_size=32)
    for name in sorted(source.tensors):
        info = source.tensors[name]
        digest.update(f"{name} {info.qtype!r} {info.rows} {info.cols}|".encode())
        digest.update(source.read(name, range(min(_SAMPLED_ROWS, info.rows))).tobytes())
    return digest.digest()
