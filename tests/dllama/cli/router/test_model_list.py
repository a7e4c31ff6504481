"""The list of a router's models: what is found on disk, and what presets make of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from api.models.entry import ModelEntry
from api.models.names import ModelNames
from benchmarks.peers.llama_server_suite import fill_cache
from dllama.cli.flags.parser import make_parser
from dllama.cli.flags.root import build_parser, read_flags
from dllama.cli.flags.router import RouterSettings
from dllama.cli.flags.server import add_server_flags
from dllama.cli.router.listed_model import FaultyModel, ListedModel
from dllama.cli.router.model_folder import models_in
from dllama.cli.router.model_list import ModelList
from dllama.cli.router.model_source import CliModelSource
from dllama.cli.router.preset_file import parse_presets
from dllama.cli.router.preset_keys import server_dests
from dllama.errors import ConfigError
from dllama.hub.settings import HubSettings
from dllama.logs.settings import LogSettings
from tests.checkpoints import write_checkpoint
from tests.toy_models import write_toy

OF_A_MODEL = {"alias", "tags", "sleep_idle_seconds"}  # of the flags in the server's group


def list_of(tmp_path: Path, preset: str, *words: str, folder: Path | None = None) -> ModelList:
    file = tmp_path / "models.ini"
    file.write_text(preset)
    settings = RouterSettings(models_dir=folder, preset_file=file)
    return ModelList(
        settings, words, lambda: HubSettings(tmp_path / "pulled", cache=tmp_path / "hub")
    )


def listed(
    tmp_path: Path, preset: str = "", *words: str, folder: Path | None = None
) -> dict[str, ListedModel]:
    """Returns the models of a list of which each can be loaded."""
    found = {}
    for model in list_of(tmp_path, preset, *words, folder=folder).read():
        assert isinstance(model, ListedModel), model.entry.fault
        found[model.entry.name] = model
    return found


def entries(
    tmp_path: Path, preset: str, *words: str, folder: Path | None = None
) -> dict[str, ModelEntry]:
    found = list_of(tmp_path, preset, *words, folder=folder).read()
    assert all(isinstance(one, FaultyModel) == bool(one.entry.fault) for one in found)
    return {model.entry.name: model.entry for model in found}


def files(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return folder


def toys(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        write_toy(folder / name)
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


def test_a_line_that_cannot_be_read_breaks_its_section() -> None:
    presets = parse_presets(
        "[a]\ntemp = 1\nwhat is this\nand this\n[b]\ntop-k = 2\n[user/repo:q8_0\ntemp = 3\n", "x"
    )
    assert presets.sections["b"] == {"top-k": "2"}, "keys after a broken header are not of b"
    assert presets.broken == {
        "a": "Line 3 of x is 'what is this'; expected [name] of a model or key = value.",
        "user/repo:Q8_0": "Line 7 of x is '[user/repo:q8_0'; expected [name] of a model or key = "
        "value.",
    }
    for text in ("what is this\n[a]\n", "[*]\nwhat", "[ *\ntemp = 1", "[]\n"):
        with pytest.raises(ConfigError, match=r"Line [12] of x"):
            parse_presets(text, "x")


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


def test_presets_become_settings_and_the_command_line_counts_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toys(tmp_path / "models", "one.gguf", "two.gguf")
    monkeypatch.chdir(toys(tmp_path, "other.gguf"))
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


WRONG = [
    ("temp = 1\nmodel = nothing.gguf", "nothing.gguf"),
    ("magic = 1", "magic is no flag"),
    ("temp = hot", "temp"),
    ("port = 1", "port is about the server"),
    ("api-key = secret", "api-key is about the server"),
    ("lora = x", "--lora"),
    ("pin = perhaps", "true or false"),
    ("stop-timeout = soon", "seconds"),
    ("shares = 1,2", "--shares names 2"),
    ("control-vector-layer-range = 1 2", "2 values"),
    ("repeat-penalty = 0", "by default"),
    ("what is this", "Line 5 of"),
]


@pytest.mark.parametrize(("keys", "told"), WRONG)
def test_a_section_that_is_wrong_takes_no_other_along(tmp_path: Path, keys: str, told: str) -> None:
    folder = toys(tmp_path / "models", "one.gguf", "two.gguf")
    found = entries(tmp_path, f"[two]\ntemp = 1\n[one]\nalias = uno\n{keys}", folder=folder)
    assert {name for name, entry in found.items() if not entry.fault} == {
        "dllama-demo.q8_0", "two",
    }  # fmt: skip
    one = found["one"]
    assert told in one.fault and one.is_downloaded and one.aliases == ("uno",)
    assert not one.is_pinned and one.source in ("models_dir", "preset")


@pytest.mark.parametrize(("keys", "told"), [row for row in WRONG if "model" not in row[0]])
def test_what_is_wrong_for_all_models_is_refused(tmp_path: Path, keys: str, told: str) -> None:
    told = told.replace("5", "2")
    with pytest.raises(ConfigError, match=told):
        listed(tmp_path, f"[*]\n{keys}")


def test_a_section_without_a_model_is_told_what_to_write(tmp_path: Path) -> None:
    fault = entries(tmp_path, "[coder]\ntemp = 1")["coder"].fault
    assert "it names no model; write model = PATH in [coder]." in fault
    assert str(tmp_path / "models.ini") in fault


def test_models_that_are_not_downloaded_are_listed_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named by a section, or in it, or as the draft of one; a download mends the list."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = toys(tmp_path / "models", "one.gguf")
    repo = "ggml-org/test-model-stories260K"
    text = (
        f"[{repo}:F32]\ntemp = 1\n[story]\nalias = tale\nhf-repo = {repo}:F32\n"
        "[small]\nmodel = qwen3:0.6b\n[one]\ndraft-model = qwen3:0.6b\n[two]\nmodel = "
        f"{folder / 'one.gguf'}\n"
    )
    models = list_of(tmp_path, text, folder=folder)
    found = {model.entry.name: model.entry for model in models.read()}
    missing = {name: entry for name, entry in found.items() if not entry.is_downloaded}
    assert set(missing) == {f"{repo}:F32", "story", "small", "one"}
    assert missing["story"].aliases == ("tale",) and not missing["story"].path
    for name, pulled in {
        f"{repo}:F32": f"{repo}:F32", "story": f"hf.co/{repo}:F32", "small": "qwen3:0.6b",
        "one": "qwen3:0.6b",
    }.items():  # fmt: skip
        assert f'POST /models {{"model": "{pulled}"}}' in missing[name].fault
    write_toy(tmp_path / "x.gguf")
    fill_cache(tmp_path / "hub", tmp_path / "x.gguf")
    again = {model.entry.name: model.entry for model in models.read()}
    assert {name for name, entry in again.items() if entry.fault} == {"small", "one"}
    assert again["story"].path == again[f"{repo}:F32"].path != ""


def test_files_that_are_no_models_are_listed_with_what_they_are(tmp_path: Path) -> None:
    """A file that is mended is read again, one that has not changed is not."""
    folder = toys(tmp_path / "models", "one.gguf", "cut.gguf")
    whole = (folder / "cut.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[:-100])
    (folder / "page.gguf").write_text("<html>Not found</html>")
    (folder / "empty.gguf").touch()
    files(folder, "folder/config.json", "folder/model.safetensors")
    models = list_of(tmp_path, "", folder=folder)
    found = {model.entry.name: model.entry.fault for model in models.read()}
    assert found["one"] == found["dllama-demo.q8_0"] == ""
    assert "It is truncated" in found["cut"] and "page.gguf is" in found["page"]
    assert "empty.gguf" in found["empty"] and "folder" in found["folder"]
    (folder / "cut.gguf").write_bytes(whole)
    again = {model.entry.name: model.entry.fault for model in models.read()}
    assert again == found | {"cut": ""}


def test_a_folder_whose_config_is_mended_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights have not changed; and what could not be read once may be read now."""
    folder = tmp_path / "models"
    write_checkpoint(folder / "one")
    config = folder / "one" / "config.json"
    whole = config.read_text()
    config.write_text(whole[:-9])
    models = list_of(tmp_path, "", folder=folder)

    def fault() -> str:
        return next(model.entry.fault for model in models.read() if model.entry.name == "one")

    assert "config.json" in fault()
    config.write_text(whole)
    assert fault() == ""


def test_links_that_lead_to_where_nobody_may_look_take_no_other_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = toys(tmp_path / "models", "one.gguf")
    files(folder, "secret.gguf", "gone.gguf", "folder/secret.gguf")
    is_file, stat = Path.is_file, Path.stat

    def refuses(path: Path) -> bool:
        if path.name == "secret.gguf":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    def goes(path: Path, **more: bool) -> os.stat_result:
        if path.name == "gone.gguf":
            path.unlink(missing_ok=True)
        return stat(path, **more)

    monkeypatch.setattr(Path, "is_file", refuses)
    monkeypatch.setattr(Path, "stat", goes)
    assert [model.name for model in models_in(folder)] == ["one"]


def test_two_models_with_one_name_leave_the_first(tmp_path: Path) -> None:
    folder = toys(tmp_path / "models", "one.gguf", "two.gguf", "three.gguf")
    text = "[one]\nalias = x,y\n[two]\nalias = z,x\n[three]\nalias = two\nload-on-startup = 1"
    found = entries(tmp_path, text, folder=folder)
    assert not found["one"].fault and found["one"].aliases == ("x", "y")
    by_fault = {"two": "'x' is a name of 'one'", "three": "'two' is a name of 'two'"}
    for name, told in by_fault.items():
        assert told in found[name].fault
    assert found["two"].aliases == ("z",) and not found["three"].loads_on_startup
    ModelNames(found.values())


def test_each_fault_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = toys(tmp_path / "models", "one.gguf")
    models = list_of(tmp_path, "[one]\nmagic = 1\n", folder=folder)
    source = CliModelSource(models, str(tmp_path), 10**9, LogSettings(), None)
    for _ in range(2):
        assert [entry.name for entry in source.entries() if entry.fault] == ["one"]
    [record] = caplog.records
    assert record.getMessage().startswith("the model one cannot be loaded: Its section in ")
    (tmp_path / "models.ini").write_text("[one]\ntemp = hot\n")
    source.entries()
    (tmp_path / "models.ini").write_text("")
    assert not any(entry.fault for entry in source.entries())
    assert len(caplog.records) == 2, "another reason is told"


def test_models_of_the_hub_have_the_names_of_llama_servers_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sections find them by those names and by ours, and may stand for them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    write_toy(tmp_path / "x.gguf")
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
