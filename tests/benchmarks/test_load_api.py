"""A short load of real servers around a toy model; asserts what is told, never how fast."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.load.server import LoadError, Room, llama_server_command, serving
from benchmarks.load_api import main, make_parser, make_plan, scenario_list
from tests.toy_models import write_toy

STAND_IN = """#!{python}
import sys
from dllama.cli.commands.root import main
given = sys.argv[1:]
given.remove("-kvu")
flags = dict(zip(given[::2], given[1::2], strict=True))
assert flags.pop("-tb") == flags["-t"]
ours = {{"-m": "--model", "-np": "--max-batch", "-c": "--kv-tokens"}}
sys.argv[1:] = [word for flag, value in flags.items() for word in (ours.get(flag, flag), value)]
sys.exit(main())
"""  # takes llama-server's flags, and answers as dllama-root does


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.gguf", max_seq_len=2048)


def test_three_scenarios_with_two_servers(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary, out = tmp_path / "llama-server", tmp_path / "found.json"
    binary.write_text(STAND_IN.format(python=sys.executable))
    binary.chmod(0o755)
    code = main([
        "--model", str(toy), "--threads", "1", "--clients", "2", "--prompt-tokens", "4",
        "--tokens", "300", "--long-tokens", "600", "--chat-tokens", "700", "--rounds", "1",
        "--llama-server", str(binary), "--json", str(out),
    ])  # fmt: skip
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "a long prompt arrives" in told.out and "turn 20" in told.out
    found = json.loads(out.read_text())
    assert found["bench_tokens_per_s"] > 0 and len(found["bench_samples"]) == 1
    assert found["ratio_to_bench"] > 0 and found["ratio_to_llama_server"] > 0
    for name in ("dllama", "llama-server"):
        row = found[name]["load"]
        assert (row["clients"], row["tokens"]) == (2, 600)
        assert 2 <= row["events"] <= 600 and set(row["ttft_ms"]) == {"p50", "p95", "p99"}
        assert found[name]["intrusion"]["prompt_tokens"] == 600
        assert min(found[name]["intrusion"]["intervals"]) > 0
        turn = found[name]["turn"]
        assert turn["same_text"] and turn["cached_tokens_without"] == [0, 0, 0]
        assert 500 < turn["prompt_tokens"] < 800
        n_new = turn["prompt_tokens"] - min(turn["cached_tokens"])
        assert n_new <= 2 * turn["prompt_tokens"] / 20 + 32  # its own tokens, and part of a page


def test_one_scenario_alone(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([
        "--model", str(toy), "--threads", "1", "--scenarios", "turn", "--chat-tokens", "500",
        "--turn-repeats", "1",
    ])  # fmt: skip
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "turn 20" in told.out and "bench" not in told.out


def test_prompts_are_cut_to_the_context(toy: Path) -> None:
    plan = make_plan(make_parser().parse_args(["--model", str(toy), "--clients", "3"]))
    assert plan.n_long == plan.n_chat == 2048 - 256 and plan.context == 2048
    room = plan.server_room
    assert room.sequences == 4 and plan.load.n_prompt + plan.intrusion_room <= room.context
    with pytest.raises(LoadError, match="more than the model's context of 2048"):
        make_plan(make_parser().parse_args(["--model", str(toy), "--tokens", "2048"]))


def test_scenarios_are_named() -> None:
    assert scenario_list("turn,load") == "load,turn"
    with pytest.raises(Exception, match="lod is no scenario"):
        scenario_list("lod")


def test_a_server_that_does_not_start_is_quoted() -> None:
    command = llama_server_command("/bin/echo", "no.gguf", Room(1, 1, 1, 1), 1)
    with (
        pytest.raises(LoadError, match=r"ended with code 0.*no\.gguf -t 1"),
        serving("echo", command, 1),
    ):
        pass
