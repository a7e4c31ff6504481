"""What inspect says about files that run, and about files that do not."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.inspect.describe import describe
from dllama.inspect.facts import ModelFacts
from dllama.inspect.render import count_text, render, size_text
from dllama.qtypes import QType
from tests.dllama.formats.crafted import rewrite
from tests.toy_models import write_toy


def shown(facts: ModelFacts) -> str:
    screen = StringIO()
    Console(width=100, file=screen).print(render(facts))
    return screen.getvalue()


def test_a_gguf_model_is_described(tmp_path: Path) -> None:
    facts = describe(write_toy(tmp_path / "toy.gguf", qtype=QType.Q4_0, hidden_dim=172))
    source = open_model(tmp_path / "toy.gguf")
    assert facts.config == source.config and facts.unsupported is None
    assert facts.n_parameters == sum(t.rows * t.cols for t in source.tensors.values())
    assert sum(group.n_bytes or 0 for group in facts.groups) == sum(
        t.n_bytes for t in source.tensors.values()
    )
    assert facts.n_bytes == (tmp_path / "toy.gguf").stat().st_size
    types = {group.name: group.types for group in facts.groups}
    assert types["blk.*.ffn_down.weight"] == {"F16": 2}
    assert types["blk.*.attn_q.weight"] == {"Q4_0": 2}
    assert facts.tokenizer is not None and facts.has_chat_template
    assert (facts.tokenizer.kind, facts.tokenizer.n_tokens) == ("byte-level BPE", 352)
    text = shown(facts)
    for part in ("toy-llama-0", "2 of width 64, hidden 172", "4 (2 key/value) of 16", "2 x Q4_0"):
        assert part in text


def test_a_mixture_is_described(tmp_path: Path) -> None:
    facts = describe(write_toy(tmp_path / "toy.gguf", arch="qwen2moe"))
    source = open_model(tmp_path / "toy.gguf")
    assert facts.n_parameters == sum(t.rows * t.cols for t in source.tensors.values())
    assert {tuple(g.dims) for g in facts.groups if "_exps" in g.name} == {
        (6, 160, 64),
        (6, 64, 160),
    }
    shared = "a token takes 2, and a shared one of 320"
    assert f"6 of 160 columns, of which {shared}" in " ".join(shown(facts).split())


def test_dense_layers_before_mixtures_are_described(tmp_path: Path) -> None:
    text = " ".join(shown(describe(write_toy(tmp_path / "toy.gguf", arch="glm4moe"))).split())
    assert "hidden 160 (the first 1 dense, 224)" in text and "a shared one of 160" in text


def test_an_m_model_is_described(tmp_path: Path) -> None:
    facts = describe(write_toy(tmp_path / "toy.m", fmt="m", arch="qwen3"))
    assert (facts.format, facts.arch, facts.tokenizer) == ("distributed-llama .m", "qwen3", None)
    assert "none in the file" in shown(facts) and "q/k norms" in shown(facts)


def test_facts_are_json(tmp_path: Path) -> None:
    facts = describe(write_toy(tmp_path / "toy.gguf"))
    assert json.loads(json.dumps(facts.as_json()))["config"]["dim"] == 64


def test_a_tensor_type_without_kernel_is_shown_and_named(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", dim=256, hidden_dim=256, n_layers=1)
    odd = rewrite(
        toy,
        tmp_path / "odd",
        reshape=lambda info: (
            replace(info, qtype=QType.Q8_K) if info.name == "output.weight" else info
        ),
    )
    facts = describe(odd)
    assert facts.config is None and facts.context == 256
    assert {"Q8_K": 1} in [group.types for group in facts.groups]
    assert facts.unsupported is not None and "output.weight is stored as Q8_K" in facts.unsupported
    assert "Cannot be run" in shown(facts)


def test_a_tensor_type_nobody_knows_is_shown_by_number(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy", n_layers=1)
    raw = bytearray(toy.read_bytes())
    at = raw.index(b"output.weight") + len("output.weight") + 4 + 16  # name, n_dims, two dims
    raw[at : at + 4] = (99).to_bytes(4, "little")
    toy.write_bytes(raw)
    facts = describe(toy)
    group = next(group for group in facts.groups if group.name == "output.weight")
    assert (group.types, group.n_bytes) == ({"type 99": 1}, None)
    assert "?" in shown(facts)


def test_another_architecture_is_shown(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy")
    facts = describe(rewrite(toy, tmp_path / "odd", metadata={"general.architecture": "mamba"}))
    assert facts.arch == "mamba" and facts.config is None and facts.context is None
    assert facts.unsupported is not None and "'mamba'" in facts.unsupported


def test_what_is_no_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("no model")
    with pytest.raises(ModelFileError):
        describe(tmp_path / "no")


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.23 kB"), (699e6, "699 MB"), (2.5e12, "2500 GB")],
)
def test_sizes_are_readable(n: float, text: str) -> None:
    assert size_text(int(n)) == text


def test_counts_are_readable() -> None:
    assert [count_text(n) for n in (12, 260_032, 1_235_814_400)] == ["12", "260 K", "1.24 B"]
