"""dllama pull, list, show, rm, ps and stop, and models by their names, with a hub on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from dllama.cli.commands.list import age_of
from dllama.cli.main import start
from dllama.errors import ConfigError, DllamaError, HubError
from tests.hub_server import COMMIT, HubServer, Trouble, hub_server
from tests.toy_models import write_toy

NAME = "hf.co/user/toy:F32"
FILE = "toy-F32.gguf"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_toy(
        tmp_path_factory.mktemp("toy") / "toy.gguf", dim=32, hidden_dim=32
    ).read_bytes()


@pytest.fixture
def hub(toy: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with a toy, which the environment names; the folders of models are empty."""
    with hub_server() as server:
        server.repos["user/toy"] = {FILE: toy, "README.md": b"a toy"}
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("DLLAMA_MODELS", str(tmp_path / "models"))
        monkeypatch.setenv("HF_TOKEN", "hf_sesame")
        yield server


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; returns its exit code and what it said on stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = start(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_pulled_model_is_run_listed_shown_and_removed_by_its_name(
    hub: HubServer, say: Callable[..., tuple[int, str, str]], tmp_path: Path, toy: bytes
) -> None:
    code, out, err = say("pull", "user/toy:F32")
    assert (code, out) == (0, "") and f"pulling {NAME}: 1 file, " in err and "is here" in err
    assert {seen.authorization for seen in hub.seen} == {"Bearer hf_sesame"}

    code, out, err = say("ls", "--json")
    [model] = json.loads(out)["models"]
    assert (model["name"], model["origin"], model["revision"]) == (NAME, "dllama", COMMIT)
    assert Path(model["path"]).read_bytes() == toy and tmp_path in Path(model["path"]).parents
    head, row = say("list")[1].splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED", "FROM"]
    assert row.split()[:2] == [NAME, model["id"]] and "just now" in row

    run = ("--raw", "Hello", "-n", "4", "--temperature", "0", "--speculate", "off")
    by_name = say("run", "-m", "hf.co/user/toy", *run)[1]
    assert by_name == say("run", "-m", model["path"], *run)[1] != ""
    assert "toy-llama-0" in say("inspect", NAME)[1]
    assert "sha256:" in (shown := say("show", "user/toy")[1]) and "toy-llama-0" in shown

    assert say("rm", "user/toy")[0] == 0
    assert list((tmp_path / "models").iterdir()) == []
    code, _, err = say("rm", "user/toy", "nonsense")
    assert code == 1 and "There is no model" in err and "short name" in err
    with pytest.raises(HubError, match="dllama pull user/toy"):
        say("show", "user/toy")


def test_a_model_that_is_not_here_is_pulled_where_that_is_wanted(
    hub: HubServer, say: Callable[..., tuple[int, str, str]]
) -> None:
    with pytest.raises(ConfigError, match="dllama pull user/toy:F32, or add --pull"):
        say("run", "-m", "user/toy:F32", "--raw", "Hi", "-n", "1")
    assert not hub.seen, "the network is not asked"
    assert say("run", "--pull", "-m", "user/toy:F32", "--raw", "Hi", "-n", "1")[0] == 0
    with pytest.raises(DllamaError, match="could not be downloaded"):
        say("run", "--pull", "-m", "user/none:F32", "--raw", "Hi", "-n", "1")
    with pytest.raises(DllamaError, match="missing"):  # a path is a path
        say("run", "--pull", "-m", "models/missing.gguf", "--raw", "Hi")


def test_one_that_fails_leaves_the_others_and_is_told(
    hub: HubServer, say: Callable[..., tuple[int, str, str]], toy: bytes, tmp_path: Path
) -> None:
    hub.repos["user/bad"] = {"bad-Q4_0.gguf": toy}
    hub.always["bad-Q4_0.gguf"] = Trouble(status=403)
    code, _, err = say("pull", "user/bad", "user/none", "user/toy")
    assert code == 1
    assert "terms" in err and "user/none is not there" in err and f"{NAME} is here" in err
    # What is not whole is told apart, and can be removed.
    hub.troubles["bad-Q4_0.gguf"].append(Trouble(cut_after=len(toy) // 2))
    assert say("pull", "user/bad")[0] == 1
    assert "dllama pull goes on with it" in say("list")[2]
    assert say("rm", "user/bad", "user/toy")[0] == 0
    assert list((tmp_path / "models").iterdir()) == []


def test_models_of_the_hubs_own_cache_are_used_and_not_touched(
    hub: HubServer, say: Callable[..., tuple[int, str, str]], toy: bytes, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    cached = Path(
        hf_hub_download("user/toy", FILE, endpoint=hub.url, cache_dir=tmp_path / "hub", token=False)
    )
    n_seen = len(hub.seen)
    [model] = json.loads(say("list", "--json")[1])["models"]
    assert (model["name"], model["origin"], model["path"]) == (NAME, "hub cache", str(cached))
    assert say("run", "-m", NAME, "--raw", "Hi", "-n", "1")[0] == 0
    assert "only reads" in say("rm", NAME)[2]
    assert len(hub.seen) == n_seen, "nothing is downloaded"
    # A pull takes the bytes that are there, and checks them.
    assert say("pull", NAME)[0] == 0
    assert len(hub.seen) == n_seen + 1, "only the list of files is asked for"
    [model] = json.loads(say("list", "--json")[1])["models"]
    assert model["origin"] == "dllama" and say("rm", NAME)[0] == 0
    assert cached.read_bytes() == toy


def test_ages_are_said_as_people_say_them() -> None:
    for seconds, expected in (
        (5, "just now"), (61, "1 minute ago"), (7200, "2 hours ago"),
        (86_400 * 15, "2 weeks ago"), (86_400 * 800, "2 years ago"),
    ):  # fmt: skip
        assert age_of(1e9, 1e9 + seconds) == expected
