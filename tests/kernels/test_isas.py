"""Every instruction set that this machine can run gives the right products, not only the best."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import cpu
from kernels.cpu import available_isas, isa
from kernels.emit.families import FAMILIES

KERNELS = Path(__file__).parents[2] / "kernels"
DIFFERENT = {
    "isa", "available_isas", "has_bf16_dot", "HAS_WIDE_REGISTERS", "FAMILIES", "family", "dot",
    "dot_bf16", "look_up", "multiply_pairs", "widest_tile", "FEW", "MANY_FROM", "MANY_FLOAT_FROM",
}  # fmt: skip
OTHERS = [name for name in available_isas() if name != isa()]
ANOTHER = max(OTHERS, key=lambda name: FAMILIES[name].wants_signed, default="")
FORMATS = "q4_0 or iq4_xs or tiles"  # nibbles, tables


@pytest.mark.timeout(1200)  # it compiles kernels of its own
@pytest.mark.skipif("DLLAMA_ISA" in os.environ, reason="this is the inner run")
@pytest.mark.skipif(not ANOTHER, reason="this processor has the portable instructions alone")
def test_products_are_right_on_another_one() -> None:
    """Whole kernels on the best one that unpacks to other bytes, in narrower tiles. That tiles of
    all give the same bits for every type test_families.py shows."""
    folder = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", f"1thread and ({FORMATS})",
         str(folder / "matmul" / "test_multiply.py"), str(folder / "test_activations.py")],
        env={**os.environ, "DLLAMA_ISA": ANOTHER}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout


def test_attention_is_the_same_code_on_all_of_them() -> None:
    """Nothing that attention is made of asks for the instruction set, so that it need not be
    compiled for each: DLLAMA_ISA changes no code but that of products."""
    found, ahead = set[Path](), list((KERNELS / "attention").glob("*.py"))
    while ahead:
        path = ahead.pop()
        if path in found or path.parent.name == "emit":  # emits what it is asked for
            continue
        found.add(path)
        ahead += imported_kernels(path)
    assert KERNELS / "attention" / "causal.py" in found and KERNELS / "team.py" in found
    asking = {path.name for path in found if asked_names(path)}
    assert asking <= {"cpu.py", "cache.py"}, "the cache's key has it"
    assert asked_names(KERNELS / "matmul" / "tiles.py") and asked_names(
        KERNELS / "matmul" / "expanded.py"
    )


def imported_kernels(path: Path) -> list[Path]:
    """Returns the files of kernels/ that a file imports."""
    names = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module is not None
    ]
    files = [KERNELS.parent / f"{name.replace('.', '/')}.py" for name in names]
    return [file for file in files if file.is_relative_to(KERNELS) and file.exists()]


def asked_names(path: Path) -> set[str]:
    """Returns what a file uses of all that differs by instruction set."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return used & DIFFERENT


@pytest.mark.skipif("avx2" not in available_isas(), reason="this processor has no AVX2")
@pytest.mark.parametrize("family", [name for name in available_isas() if name.startswith("avx")])
def test_nothing_wider_is_compiled_for_a_narrower_one(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "isa", lambda: family)
    flags = cpu.feature_flags().split(",")
    assert "+avx2" in flags and "+fma" in flags
    # a processor whose 256-bit dot product is AVX-512's has it with AVX-512 only
    has_own_dot = "avxvnni" in cpu.cpu_features()
    is_wide = family == "avx512vnni" or (family == "avxvnni" and not has_own_dot)
    assert ("+avx512f" in flags) == is_wide
    assert not any(flag.startswith("+amx") for flag in flags if family == "avx2")


def test_asking_for_what_the_processor_lacks_is_a_sentence() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import kernels.formats.q4_0"],
        env={**os.environ, "DLLAMA_ISA": "quantum"}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode != 0
    assert "this processor can run only" in run.stderr
