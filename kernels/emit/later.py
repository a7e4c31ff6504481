"""numba's modules under their usual names, imported when something in them is first used: a process
whose kernels all come from the disk never imports numba, which takes a quarter of a second."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)


types: Any = _Later("numba.core.types")
cgutils: Any = _Later("numba.core.cgutils")
