"""A cluster key is made, kept, read and proved, and shown to nobody."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.security.cluster_key import ClusterKey, new_cluster_key, parse_cluster_key
from cluster.security.settings import Security, security_of
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.main import start
from dllama.errors import ConfigError

FACTS = ["a", "bc"]


@given(st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_from_its_text(raw: bytes) -> None:
    text = ClusterKey(raw).text()
    again = parse_cluster_key(f" {text.upper()}\n")
    assert again.text() == text
    assert again.proof("root", FACTS) == ClusterKey(raw).proof("root", FACTS)


@given(st.integers(4, 59), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_a_changed_character_is_noticed_and_the_key_is_not_repeated(at: int, other: str) -> None:
    text = ClusterKey(bytes(range(32))).text()
    changed = text[:at] + other + text[at + 1 :]
    if changed == text:
        return
    with pytest.raises(ConfigError, match="copy it again") as error:
        parse_cluster_key(changed)
    assert changed not in str(error.value) and changed[10:30] not in str(error.value)


def test_what_is_no_key_is_said() -> None:
    with pytest.raises(ConfigError, match="has 6 characters; expected 60, as `dllama key`"):
        parse_cluster_key("secret")
    with pytest.raises(ConfigError, match=r"cannot be read from /no/such/file"):
        parse_cluster_key("@/no/such/file")


def test_a_proof_holds_for_one_side_and_these_facts_only() -> None:
    key = new_cluster_key()
    proof = key.proof("root", FACTS)
    assert key.is_proof(proof, "root", FACTS)
    assert not key.is_proof(proof, "worker", FACTS)
    assert not key.is_proof(proof, "root", ["ab", "c"])
    assert not key.is_proof("", "root", FACTS)
    assert not key.is_proof("é", "root", FACTS)
    assert not new_cluster_key().is_proof(proof, "root", FACTS)


def test_a_key_shows_in_no_text_of_what_holds_it() -> None:
    key = new_cluster_key()
    settings = EngineSettings("m", 1, cluster_key=key.text())
    for shown in (repr(key), str(key), repr(Security(cluster_key=key)), repr(settings)):
        assert key.text() not in shown and key.text()[10:30] not in shown


def test_the_command_makes_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(["key"]) == 0
    printed = capsys.readouterr()
    first = parse_cluster_key(printed.out)
    assert printed.err == ""
    path = tmp_path / "key"
    assert start(["key", "-o", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = parse_cluster_key(f"@{path}")
    assert first.text() != second.text()
    with pytest.raises(ConfigError, match="is there already"):
        start(["key", "-o", str(path)])


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o644, 0o666, 0o640])
def test_a_file_that_others_may_read_is_warned_of_and_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    key, path = new_cluster_key(), tmp_path / "the key"
    path.write_text(key.text())
    path.chmod(mode)
    assert parse_cluster_key(f"@{path}").text() == key.text()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (0 if mode in (0o600, 0o400) else 1)
    for line in said:
        assert f"mode {mode:04o}" in line and line.endswith(f"run: chmod 600 '{path}'")
        assert key.text() not in line


def test_a_flag_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = new_cluster_key().text(), new_cluster_key().text()
    monkeypatch.setenv("DLLAMA_CLUSTER_KEY", one)
    for flag, expected in ((None, one), (other, other)):
        key = security_of(flag, encrypts=True).cluster_key
        assert key is not None and key.text() == expected


@pytest.mark.parametrize("text", ["", "zzz"])
def test_a_bad_key_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """An empty one too: who sets it does not want to run an open node."""
    monkeypatch.setenv("DLLAMA_CLUSTER_KEY", text)
    with pytest.raises(ConfigError, match=r"^\$DLLAMA_CLUSTER_KEY: .* has \d characters.*unset it"):
        security_of(None, encrypts=True)
