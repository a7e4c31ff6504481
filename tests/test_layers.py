"""Imports run one way: kernels <- dllama <- cluster <- api, dllama.cli above them, then benchmarks,
and tests above all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "kernels": 0,
    "dllama": 1,
    "cluster": 2,
    "api": 3,
    "dllama.cli": 4,
    "benchmarks": 5,
    "tests": 6,
}
ONLY_IN = {
    "zmq": ("cluster", "api.engines.zmq_client"),
    "msgpack": ("cluster",),
    "aiohttp": ("api", "dllama.hub.web"),
    "numba": ("kernels",),
    "llvmlite": ("kernels",),
    "llguidance": ("dllama.constraints",),
    "opentelemetry": ("api.http.spans",),
}


def _modules() -> Iterator[tuple[str, Path]]:
    for package in ("kernels", "dllama", "cluster", "api", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _floor(module: str) -> int | None:
    if module in ("dllama.cli", "dllama.__main__") or module.startswith("dllama.cli."):
        return FLOORS["dllama.cli"]
    return FLOORS.get(module.split(".")[0])


@pytest.mark.parametrize(("module", "path"), list(_modules()), ids=str)
def test_imports_go_down_only(module: str, path: Path) -> None:
    own = _floor(module)
    assert own is not None
    for target in _imports(path):
        floor = _floor(target)
        assert floor is None or floor <= own, f"{module} imports {target}, which is above it"
        allowed = ONLY_IN.get(target.split(".")[0]) if own < FLOORS["benchmarks"] else None
        assert allowed is None or module.startswith(allowed), f"{module} must not import {target}"


def test_there_is_something_to_check() -> None:
    assert len(list(_modules())) > 50
