"""dllama plan, in this process: no node is there."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cluster.planning.description import read_description
from cluster.planning.links import LinkPoint, LinkSpeed
from cluster.planning.report import NamedLink, PlanReport
from cluster.planning.work import ModelWork, Room, described_tensors
from dllama.cli.main import start
from dllama.cli.terminal.plan_table import plan_view
from dllama.errors import ConfigError
from tests.toy_models import write_toy

EXAMPLES = Path(__file__).parents[3] / "examples" / "plans"
PI5 = EXAMPLES / "pi5-llama-3-8b.toml"


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert start(["plan", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def decode_of(found: dict[str, object], n_nodes: int) -> float:
    plans = found["plans"]
    assert isinstance(plans, list)
    return max(p["decode_tokens_per_s"] for p in plans if len(p["nodes"]) == n_nodes)


def test_published_figures_of_raspberry_pis(capsys: pytest.CaptureFixture[str]) -> None:
    """One board is what the description was made from; two and four follow from it."""
    found = planned(capsys, "--simulate", str(PI5))
    assert found["is_simulated"] is True
    assert decode_of(found, 1) == pytest.approx(1.77, rel=0.1)
    assert decode_of(found, 2) == pytest.approx(3.07, rel=0.15)
    assert 4.08 < decode_of(found, 4) < 5.70  # an even cut, and what patched programs reach


def test_people_read_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert start(["plan", "--simulate", str(PI5)]) == 0
    said = " ".join(capsys.readouterr().out.split())  # lines are as long as the terminal is wide
    assert "Simulated: nodes and links are described, not measured." in said
    assert "<- used" in said and "Four nodes are best" in said
    assert "64 synchronisations of" in said


def test_a_bandwidth_that_is_not_known_is_no_number() -> None:
    """In the table, and in JSON, which has no infinity."""
    found = read_description(PI5)
    assert found.model is not None
    work = ModelWork(found.model[0], described_tensors(*found.model), Room(256, 256))
    link = NamedLink(("a", "b"), LinkSpeed([LinkPoint(2048, 5e4, 5e4)], "eth0"))
    report = PlanReport(work, found.nodes, [link], [], None, is_simulated=False)
    text = json.dumps(report.as_json(), allow_nan=False)
    assert json.loads(text)["links"][0]["gbit_per_s"] is None
    console = Console(file=StringIO(), width=120)
    console.print(plan_view(report))
    assert isinstance(console.file, StringIO)
    assert "50000 µs  50000 µs       ?" in console.file.getvalue()


def test_a_slow_network_is_told_and_use_all_takes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "slow.toml"
    file.write_text(PI5.read_text().replace("latency_us = 180", "latency_us = 20000"))
    found = planned(capsys, "--simulate", str(file))
    assert "slower than one here" in str(found["verdict"])
    left_out = found["left_out"]
    assert isinstance(left_out, dict) and sorted(left_out) == ["pi 2", "pi 3", "pi 4"]
    found = planned(capsys, "--simulate", str(file), "--use-all")
    assert found["left_out"] == {}


def test_a_model_file_instead_of_a_described_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    toy = write_toy(tmp_path / "toy.gguf")
    file = tmp_path / "nodes.toml"
    text = PI5.read_text()
    file.write_text(text[text.index("[[nodes]]") :])
    found = planned(capsys, "-m", str(toy), "--simulate", str(file))
    assert found["model"] != "Llama 3 8B"
    assert decode_of(found, 1) > 100


def test_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        start(["plan", "--simulate", str(tmp_path / "none.toml")])
