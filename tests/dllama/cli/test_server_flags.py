"""Keys from flags, files and the environment; the other flags about HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllama.cli.flags.logs import log_settings
from dllama.cli.flags.root import build_parser, read_flags
from dllama.cli.flags.server import LLAMA_KEYS_VARIABLE, server_settings
from dllama.cli.flags.settings import ServerSettings
from dllama.errors import ConfigError
from dllama.logs.settings import LogSettings


def settings(*argv: str) -> ServerSettings:
    return server_settings(build_parser().parse_args(list(argv)))


def test_keys_come_from_flags_and_files_or_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLLAMA_API_KEY", "env1,env2")
    assert read_flags([]).server.api_keys == ("env1", "env2")
    assert read_flags(["--api-key", "a"]).server.api_keys == ("a",)
    assert settings("--api-key", "a,b", "--api-key", "c", "--api-key", "a").api_keys == (
        "a", "b", "c",
    )  # fmt: skip
    file = tmp_path / "keys"
    file.write_text("# ours\nd\n\n  a \n")
    assert settings("--api-key", "a", "--api-key-file", str(file)).api_keys == ("a", "d")
    assert read_flags(["--api-key-file", str(file)]).server.api_keys == ("d", "a")
    monkeypatch.setenv(LLAMA_KEYS_VARIABLE, "env2,env3")
    assert read_flags([]).server.api_keys == ("env1", "env2")
    monkeypatch.delenv("DLLAMA_API_KEY")
    assert settings().api_keys == ("env2", "env3")
    monkeypatch.delenv(LLAMA_KEYS_VARIABLE)
    assert settings().api_keys == ()
    assert "secret" not in repr(settings("--api-key", "secret"))


def test_a_key_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    for text in ("first\nsecond\n", "# ours\nfirst\nsecond\n"):
        file.write_text(text, encoding="utf-8-sig")
        assert settings("--api-key-file", str(file)).api_keys == ("first", "second")


def test_a_key_file_without_keys_leaves_no_server_open(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path in (empty, binary, tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            settings("--api-key-file", str(path))


@pytest.mark.parametrize(
    ("text", "host"),
    [("pi", "pi"), ("10.0.0.1", "10.0.0.1"), ("fd00::1", "fd00::1"), ("[fd00::1]", "fd00::1"),
     ("a:1", None), ("[::1]:1", None), ("a b", None), ("", None)],
)  # fmt: skip
def test_the_address_that_workers_are_told_has_no_port(text: str, host: str | None) -> None:
    if host is None:
        with pytest.raises(SystemExit):
            build_parser().parse_args(["--advertise", text])
    else:
        assert build_parser().parse_args(["--advertise", text]).advertise == host


def test_the_other_flags() -> None:
    found = settings("--drain-timeout", "1.5", "--max-body", "3", "--host", "unix:/run/d")
    assert (found.drain_s, found.max_body_mb, found.hosts) == (1.5, 3, ("unix:/run/d",))
    for wrong in (("--drain-timeout", "-1"), ("--max-body", "0"), ("--drain-timeout", "inf")):
        with pytest.raises(SystemExit):
            settings(*wrong)


def test_log_flags_are_read_and_wrong_ones_are_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def logs(*argv: str) -> LogSettings:
        return log_settings(build_parser().parse_args(list(argv)))

    assert logs() == LogSettings("warning", "text")
    assert logs("--log-format", "JSON", "--log-level", "INFO") == LogSettings("info", "json")
    assert logs("--log-jsonl", "-v") == LogSettings("debug", "json")
    for flag, told in (
        ("--log-level", "debug, info, warning or error"),
        ("--log-format", "text or"),
    ):
        with pytest.raises(SystemExit):
            logs(flag, "loud")
        assert f"'loud' is no {flag[6:]} of the log; choose {told}" in capsys.readouterr().err
