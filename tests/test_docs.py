"""Documents that cannot rot: versions agree, and what they name exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import dllama

ROOT = Path(__file__).resolve().parents[1]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## \[?([0-9.]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest.group(1) == project["version"] == dllama.__version__


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_files_and_names_in_contributing_exist() -> None:
    """Recipes name files by their paths, or by their names within a path named before, and
    identifiers of the sources."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text[text.index("## Recipes") :])
    paths = [span for span in spans if re.fullmatch(r"[\w./*]+(\.py|\.md|/)", span)]
    sources = [p for top in ("kernels", "dllama", "cluster", "api", "tests", "benchmarks")
               for p in sorted((ROOT / top).rglob("*.py"))]  # fmt: skip
    for path in paths:
        found = list(ROOT.glob(path)) if "/" in path else [p for p in sources if p.name == path]
        assert found, f"CONTRIBUTING names the file {path}"
    words = {word for p in sources for word in re.findall(r"\w+", p.read_text())}
    for span in spans:
        if re.fullmatch(r"\w+", span):
            assert span in words, f"CONTRIBUTING names {span}"
    assert len(paths) > 10


def test_flags_in_the_readme_exist() -> None:
    """Every --flag the README shows is one that some command knows."""
    from dllama.cli import command_table

    known = set(command_table.build_parser("")._option_string_actions)
    for _, parser in command_table.all_parsers():
        known.update(parser._option_string_actions)
    text = (ROOT / "README.md").read_text()
    assert "@@" not in text, "a placeholder is still to be filled"
    shown = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text))
    assert shown, "the README shows no flag at all"
    assert shown <= known, f"unknown flags: {sorted(shown - known)}"
