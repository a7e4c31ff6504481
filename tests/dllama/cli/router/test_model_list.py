"""The list of a router's models: what is found on disk, and what presets make of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from benchmarks.peers.llama_server_suite import fill_cache
from dllama.cli.flags.parser import make_parser
from dllama.cli.flags.root import build_parser, read_flags
from dllama.cli.flags.router import RouterSettings
from dllama.cli.flags.server import add_server_flags
from dllama.cli.router.model_folder import models_in
from dllama.cli.router.model_list import ListedModel, ModelList
from dllama.cli.router.preset_file import parse_presets
from dllama.cli.router.preset_keys import server_dests
from dllama.errors import ConfigError
from dllama.hub.settings import HubSettings

OF_A_MODEL = {"alias", "tags", "sleep_idle_seconds"}  # of the flags in the server's group


def listed(
    tmp_path: Path, preset: str = "", *words: str, folder: Path | None = None
) -> dict[str, ListedModel]:
    file = tmp_path / "models.ini"
    file.write_text(preset)
    settings = RouterSettings(models_dir=folder, preset_file=file)
    models = ModelList(
        settings, words, lambda: HubSettings(tmp_path / "pulled", cache=tmp_path / "hub")
    )
    return {model.entry.name: model for model in models.read()}


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return folder


def test_files_parts_and_folders(tmp_path: Path) -> None:
    folder = files(
        tmp_path, "one.gguf", "two.m", "two.t", "big-00001-of-00002.gguf",
        "big-00002-of-00002.gguf", "mmproj-one.gguf", "mtp-one.gguf", "notes.txt",
        "parts/x-00002-of-00002.gguf", "parts/x-00001-of-00002.gguf", "parts/a.gguf",
        "single/model.gguf", "single/mmproj.gguf", "check/config.json",
        "check/model.safetensors", "empty/readme.md", "deep/er/model.gguf",
    )  # fmt: skip
    found = {model.name: model for model in models_in(folder)}
    assert {name: model.path.relative_to(folder).as_posix() for name, model in found.items()} == {
        "one": "one.gguf", "two": "two.m", "big": "big-00001-of-00002.gguf",
        "parts": "parts/x-00001-of-00002.gguf", "single": "single/model.gguf", "check": "check",
    }  # fmt: skip
    assert found["big"].size_bytes == 2 * len("big-00001-of-00002.gguf")
    with pytest.raises(ConfigError, match="--models-dir"):
        models_in(tmp_path / "nowhere")


def test_a_preset_file_is_read_as_llama_server_reads_it() -> None:
    presets = parse_presets(
        "; a comment\nversion = 1\n[*]\nctx-size = 512 ; and another\n\n"
        "[one]\n# more\ntemp=0.5\npin = true\n[user/repo:q4_k_m]\nmodel = x.gguf\n"
    )
    assert presets.common == {"ctx-size": "512"}
    assert presets.sections == {
        "one": {"temp": "0.5", "pin": "true"}, "user/repo:Q4_K_M": {"model": "x.gguf"},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Line 2 of x"):
        parse_presets("[a]\nwhat is this", "x")


PRESET = """
[*]
ctx-size = 512
temp = 0.1
model = ignored.gguf

[one]
alias = uno,eins
temp = 0.5
seed = 42
workers = 10.0.0.2,10.0.0.3
shares = 2,1,1
load-on-startup = true
stop-timeout = 3
pin = on
sleep-idle-seconds = 60
cache-prompt = false
c = 256
LLAMA_ARG_TOP_K = 7

[other]
model = other.gguf
"""


def test_presets_become_settings_and_the_command_line_counts_more(tmp_path: Path) -> None:
    folder = files(tmp_path / "models", "one.gguf", "two.gguf")
    found = listed(tmp_path, PRESET, "--threads", "3", folder=folder)
    assert set(found) == {"dllama-demo.q8_0", "one", "two", "other"}
    one = found["one"]
    assert one.entry.aliases == ("uno", "eins") and one.entry.source == "models_dir"
    assert (one.entry.is_pinned, one.entry.loads_on_startup, one.entry.stop_s) == (True, True, 3.0)
    assert one.entry.idle_s == 60.0 and one.engine.ctx_size == 256 and one.engine.threads == 3
    assert one.engine.workers == ("10.0.0.2", "10.0.0.3") and one.engine.shares == (2, 1, 1)
    assert one.entry.defaults.fields == {
        "temperature": 0.5, "seed": 42, "top_k": 7, "cache_prompt": False,
    }  # fmt: skip
    assert one.entry.path == str(folder / "one.gguf") == one.engine.model
    assert "--temp=0.5" in one.entry.args and "[one]" in one.entry.preset
    two = found["two"]
    assert (two.engine.ctx_size, two.entry.defaults.fields) == (512, {"temperature": 0.1})
    assert (found["other"].engine.model, found["other"].entry.source) == ("other.gguf", "preset")
    again = listed(tmp_path, PRESET, "--ctx-size", "64", "--temp", "0.9", folder=folder)
    assert again["one"].engine.ctx_size == 64, "as llama-server has it"
    assert again["one"].entry.defaults.fields["temperature"] == 0.9
    assert again["one"].entry != one.entry and again["one"].entry.args == one.entry.args


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("[x]\ntemp = 1", "names no model"),
        ("[one]\nmagic = 1", "magic is no flag"),
        ("[one]\ntemp = hot", "temp"),
        ("[one]\nport = 1", "port is about the server"),
        ("[one]\napi-key = secret", "api-key is about the server"),
        ("[one]\nlora = x", "--lora"),
        ("[one]\npin = perhaps", "true or false"),
        ("[one]\nstop-timeout = soon", "seconds"),
        ("[one]\nshares = 1,2", "--shares names 2"),
        ("[one]\ncontrol-vector-layer-range = 1 2", "2 values"),
        ("[one]\nrepeat-penalty = 0", "by default"),
    ],
)
def test_presets_that_are_wrong_are_sentences(tmp_path: Path, section: str, told: str) -> None:
    folder = files(tmp_path / "models", "one.gguf")
    with pytest.raises(ConfigError, match=told):
        listed(tmp_path, section, folder=folder)


def test_models_of_the_hub_have_the_names_of_llama_servers_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sections find them by those names and by ours, and may stand for them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    fill_cache(tmp_path / "hub", tmp_path / "x.gguf")
    tiny, gemma = "ggml-org/test-model-stories260K:F32", "ggml-org/tinygemma3-GGUF:Q8_0"
    sections = f"[{tiny.replace('F32', 'f32')}]\ntemp = 0.5\n[hf.co/{gemma}]\ntop-k = 3\n"
    found = listed(tmp_path, sections)
    assert len(found) == 4
    for name, fields in ((tiny, {"temperature": 0.5}), (gemma, {"top_k": 3})):
        assert found[name].entry.aliases == (f"hf.co/{name}",)
        assert not found[name].entry.can_remove, "it is another program's"
        assert found[name].entry.defaults.fields == fields
    [preset, switch] = "[mine]\nhf-repo = ggml-org/tinygemma3-GGUF\n", "dedup-cache-models = 1\n"
    assert {"mine", gemma} < set(listed(tmp_path, preset))
    for text in (preset + switch, f"[*]\n{switch}{preset}"):
        found = listed(tmp_path, text)
        assert found["mine"].entry.aliases == (gemma, f"hf.co/{gemma}")
        assert set(found) == {"dllama-demo.q8_0", "mine", tiny, tiny.replace(":", "-infill:")}


def test_flags_of_the_server_are_not_those_of_a_model() -> None:
    parser = make_parser("x", "")
    add_server_flags(parser)
    found = server_dests(parser)
    assert {action.dest for action in parser.flags()} == found | OF_A_MODEL
    assert found < server_dests(build_parser()) and not found & OF_A_MODEL


def test_which_flags_start_a_router(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_flags([]).router is None and read_flags(["-m", "x"]).router is None
    found = read_flags(["--models-max", "0", "--models-memory", "0.5", "--no-models-autoload"])
    assert found.router == RouterSettings(None, None, 0, 500_000_000, autoloads=False)
    with pytest.raises(ConfigError, match="--models-dir"):
        read_flags(["-m", "x", "--models-dir", "d"])
    with pytest.raises(ConfigError, match="--alias"):
        read_flags(["--alias", "x", "--models-dir", "d"])
    monkeypatch.setenv("LLAMA_ARG_MODELS_DIR", "d")
    monkeypatch.setenv("LLAMA_ARG_NO_MODELS_AUTOLOAD", "1")
    found = read_flags([])
    assert found.router is not None and found.router.models_dir == Path("d")
    assert not found.router.autoloads
