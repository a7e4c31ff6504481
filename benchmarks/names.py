"""The names of tests, read back: pp512, tg128, tg128@d4096, tg64xb16."""

from __future__ import annotations

import re

from dllama.bench import Test

_NAME = re.compile(r"(pp|tg)(\d+)(?:xb(\d+))?(?:@d(\d+))?")


def parse_test(name: str) -> Test:
    """Raises ValueError where it is no test's name."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no test; expected pp512, tg128, tg128@d4096 or tg64xb16")
    kind, n, batch, depth = found.groups()
    return Test(kind == "tg", int(n), int(depth or 0), int(batch or 1))
