"""The example of a plugin: what it adds is there, and broken plugins take nothing along."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "plugin"
BROKEN = """
[dllama.commands]
gone = nowhere_at_all
odd = json
list = json

[dllama.models]
wrong = json:loads
llama = dllama.models.llama:LLAMA
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what pip writes of the example, and of a package of broken plugins."""
    folder = tmp_path_factory.mktemp("packages")
    groups = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    text = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in rows.items())
        for group, rows in groups.items()
    )
    for name, points in (("dllama_example", text), ("broken_one", BROKEN)):
        info = folder / f"{name}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(points)
    return folder


def run(packages: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = [str(packages), str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {"PYTHONPATH": os.pathsep.join(paths), "DLLAMA_HELLO_NAME": "variable"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=os.environ | variables,
        timeout=120,
    )  # fmt: skip


def test_a_command(packages: Path) -> None:
    greeted = run(packages, "-m", "dllama", "hello", "--name", "you")
    assert (greeted.returncode, greeted.stdout) == (0, "Hello, you!\n"), greeted.stderr
    assert run(packages, "-m", "dllama", "hello").stdout == "Hello, variable!\n"
    helped = run(packages, "-m", "dllama", "--help").stdout
    assert "of the package dllama_example" in " ".join(helped.split())


def test_broken_commands_are_named(packages: Path) -> None:
    for name, said in (("gone", "No module named 'nowhere_at_all'"), ("odd", "add_parser")):
        broken = run(packages, "-m", "dllama", name)
        assert broken.returncode == 1 and "Traceback" not in broken.stderr
        assert f"the plugin {name} of broken_one" in broken.stderr and said in broken.stderr
    listed = run(packages, "-m", "dllama", "list")
    assert listed.returncode == 0 and "MODIFIED" in listed.stdout, "ours is the one that counts"


def test_a_family_and_a_dialect(packages: Path, tmp_path: Path) -> None:
    """A model of the family answers; a template with the dialect's sign has it."""
    code = f"""
import sys
from pathlib import Path
from tests.toy_models import write_toy
from api.tools.dialects import dialect_of
from dllama.models import FAMILIES
print(dialect_of(("tools <call-example>",)).name, dialect_of(("tools <tool_call>",)).name)
print(FAMILIES["example-llama"].title, FAMILIES["llama"].title != "Example Llama")
write_toy(Path({str(tmp_path / "toy.gguf")!r}), arch="example-llama")
sys.argv[1:] = ["run", "-m", {str(tmp_path / "toy.gguf")!r}, "--raw", "-n", "3", "hello"]
from dllama.cli.main import main
sys.exit(main())
"""
    found = run(packages, "-c", code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("example hermes\nExample Llama True\n")
    for said in ("wrong of broken_one", "there is a llama already"):
        assert said in found.stderr
