"""Commands on a folder of safetensors files: the same answers as from the GGUF file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import load_tokenizer, metadata_of, open_source
from dllama.cli.server.model_facts import model_id
from dllama.cli.server.model_sampling import model_sampling
from dllama.errors import ConfigError
from dllama.formats import open_model
from dllama.inspect.describe import describe
from dllama.inspect.render import render
from tests.checkpoints import write_bpe_tokenizer, write_checkpoint
from tests.dllama.cli.test_commands import dllama
from tests.local_model import local_runner, make_step
from tests.toy_models import write_toy

TOKENS = list(range(5, 45))


def test_run_and_inspect_take_a_folder(tmp_path: Path) -> None:
    folder, file = write_checkpoint(tmp_path / "toy"), write_toy(tmp_path / "toy.gguf")
    words = ("--temperature", 0, "-n", 8, "-t", 1, "hello")
    from_folder, from_file = dllama("run", "-m", folder, *words), dllama("run", "-m", file, *words)
    assert from_folder.returncode == 0, from_folder.stderr
    assert from_folder.stdout == from_file.stdout
    shown = dllama("inspect", "--json", folder)
    facts = json.loads(shown.stdout)
    assert (facts["name"], facts["arch"], facts["format"]) == ("toy", "llama", "safetensors")
    assert facts["tokenizer"]["n_tokens"] == 352 and facts["has_chat_template"]


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "exaone4"])
def test_a_runner_gives_the_very_logits_of_the_gguf_file(tmp_path: Path, arch: str) -> None:
    found = []
    paths = (
        write_checkpoint(tmp_path / "toy", arch=arch, n_files=2),
        write_toy(tmp_path / "toy.gguf", arch=arch),
    )
    for path in paths:
        with local_runner(path) as runner:
            rows = runner.run(make_step([(0, TOKENS, 0)], every_row=True))
            found.append(b"".join(row.logits.tobytes() for row in rows if row.logits is not None))
    assert found[0] == found[1] and len(found[0]) == 4 * 40 * 352


def test_a_folder_that_cannot_be_run_is_described_with_the_reason(tmp_path: Path) -> None:
    facts = describe(write_checkpoint(tmp_path / "toy", n_files=2, num_experts=4))
    assert facts.config is None and facts.n_parts == 2 and facts.context == 256
    assert facts.unsupported is not None and "num_experts is '4'" in facts.unsupported
    assert {group.name for group in facts.groups} >= {"model.layers.*.mlp.up_proj.weight"}
    render(facts)


def test_sampling_that_the_makers_recommend_is_taken(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy")
    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(said))
    sampling = model_sampling(metadata_of(str(folder), None))
    assert sampling.temperature == pytest.approx(0.6) and sampling.top_k == 20
    (folder / "generation_config.json").write_text(json.dumps(said | {"do_sample": False}))
    assert "general.sampling.temp" not in metadata_of(str(folder), None)


def test_a_tokenizer_of_a_folder_serves_another_model(tmp_path: Path) -> None:
    write_bpe_tokenizer(tmp_path, 300)
    toy = write_toy(tmp_path / "toy.m", fmt="m")
    settings = EngineSettings(model=str(toy), threads=1, tokenizer=str(tmp_path))
    assert open_source(settings).config.n_tokens == 300
    assert load_tokenizer(str(toy), tmp_path / "tokenizer.json").vocab_size == 300
    write_bpe_tokenizer(tmp_path, 400)
    with pytest.raises(ConfigError, match="the tokenizer has 400 tokens"):
        open_source(settings)


def test_a_tokenizer_that_is_not_known_can_be_replaced(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy", tokenizer="none")
    (folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    assert open_model(folder).config.tokenizer_size is None
    toy = write_toy(tmp_path / "toy.gguf")
    assert load_tokenizer(str(folder), toy).vocab_size == 352


def test_a_folder_is_served_under_its_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "Qwen3-0.6B")
    for path in (folder, folder / "config.json", folder / "model.safetensors"):
        assert model_id(str(path)) == "Qwen3-0.6B"
