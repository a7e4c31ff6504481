"""Every flag of every command can be set by a variable and in config.toml, and means there what it
means on the command line; what counts before what; what is wrong is named with its place."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import pytest

from cluster.worker import slots
from dllama.cli.command_table import all_parsers, parser_of
from dllama.cli.flags import worker as flags_of_worker
from dllama.cli.flags.parser import FlagParser, long_names
from dllama.cli.flags.root import checked_root, resolved_root
from dllama.cli.main import start
from dllama.cli.sources.level import by_key
from dllama.cli.sources.reading import read_flags, untyped
from dllama.cli.sources.resolve import resolve
from dllama.cli.sources.variables import OTHERS, PREFIX, unknown_variables, variable_of
from dllama.errors import ConfigError

PARSERS = dict(all_parsers())
SAMPLES = (
    "1",
    "3",
    "0.5",
    "exact",
    "q8_0",
    "a",
    "15043+1",
    '{"a": 1}',
    "/llm",
    "top_k,top_p",
    "big:9998",
    "info",
    "json",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of config.toml; no variable is set."""
    monkeypatch.setenv("DLLAMA_HOME", str(tmp_path))
    for name in ("DLLAMA_CLUSTER_KEY", "DLLAMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)


def value(command: str, dest: str, *words: str) -> object:
    return getattr(read_flags(parser_of(command), command, words).args, dest)


def sample_of(parser: FlagParser, action: argparse.Action, key: str) -> tuple[str, object]:
    """Returns a text that a flag takes, and what it makes of it."""
    if action.nargs == 0:
        flag = f"--{key}"
        return "on", parser.given([flag], needs_all=False)[0][action.dest]
    texts = [str(choice) for choice in action.choices or SAMPLES]
    parser.raises = True
    try:
        for text in texts:
            try:
                return text, parser.given([f"--{key}={text}"], needs_all=False)[0][action.dest]
            except ConfigError:
                continue
    finally:
        parser.raises = False
    raise AssertionError(f"--{key} takes none of {texts}")


@pytest.mark.parametrize("command", PARSERS)
def test_every_flag_has_a_variable_and_a_key(
    command: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = PARSERS[command]
    n_rows = 0
    for key, action in by_key(parser).items():
        if action.dest == "cluster_key":  # checked beside the others, as its value is a secret
            continue
        text, wanted = sample_of(parser, action, key)
        with monkeypatch.context() as patch:
            patch.setenv(variable_of(key, command), text)
            found = resolve(parser, untyped(parser, command))
            assert getattr(found.args, action.dest) == wanted, key
            assert found.found[action.dest].origin == f"${variable_of(key, command)}"
        write(home, f"[{command}]\n{key} = {json.dumps(text)}\n")
        found = resolve(parser, untyped(parser, command))
        assert getattr(found.args, action.dest) == wanted, key
        assert f"{command}.{key} in {home}" in found.found[action.dest].origin
        (home / "config.toml").unlink()
        n_rows += 1
    assert n_rows or not parser.flags()


def test_what_counts_before_what(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert value("run", "ctx_size") == 0
    write(home, "ctx-size = 1\n")
    assert value("run", "ctx_size") == 1
    write(home, "ctx-size = 1\n[run]\nctx-size = 2\n")
    assert value("run", "ctx_size") == 2 and value("plan", "ctx_size") == 1
    monkeypatch.setenv("DLLAMA_CTX_SIZE", "3")
    assert value("run", "ctx_size") == 3
    monkeypatch.setenv("DLLAMA_RUN_CTX_SIZE", "4")
    assert value("run", "ctx_size") == 4 and value("plan", "ctx_size") == 3
    assert value("run", "ctx_size", "-c", "5") == 5
    monkeypatch.setenv("DLLAMA_RUN_CTX_SIZE", "")
    assert value("run", "ctx_size") == 3, "an empty variable is none"


def test_a_switch_can_be_turned_off_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, "verbose = true\ncontext-shift = true\n")
    assert value("root", "verbose") is True and value("root", "context_shift") is True
    monkeypatch.setenv("DLLAMA_VERBOSE", "off")
    assert value("root", "verbose") is False
    assert value("root", "context_shift", "--no-context-shift") is False


def test_lists_objects_and_homes(home: Path) -> None:
    write(
        home,
        """
workers = ["a", "b:1"]
api-key = ["k1", "k2,k3"]
models-dir = "~/models"
chat-template-kwargs = {a = 1}
""",
    )
    args = read_flags(parser_of("root"), "root", ()).args
    assert args.workers == ("a", "b:1") and args.api_key == [("k1",), ("k2", "k3")]
    assert args.models_dir == Path.home() / "models" and args.chat_template_kwargs == {"a": 1}
    assert value("root", "api_key", "--api-key", "mine") == [("mine",)], "a flag adds nothing"


def test_a_port_for_all_is_not_the_workers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLAMA_PORT", "1234")
    write(home, "host = '192.0.2.1'\nctx-size = 64\n")
    assert value("root", "port") == 1234 and value("worker", "port") == 9998
    assert value("worker", "host") == "0.0.0.0" and value("perplexity", "ctx_size") == 512
    monkeypatch.setenv("DLLAMA_WORKER_PORT", "1235")
    assert value("worker", "port") == 1235


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), ("file.gguf", None, "q8_0")),
        (("--models-dir", "d"), (None, Path("d"), "q8_0")),
        (("-m", "x", "--kv-type", "f16"), ("x", None, None)),
        (("-hf", "a/b"), ("hf.co/a/b", None, "q8_0")),
    ],
)
def test_a_choice_silences_its_rivals_below(
    home: Path, words: tuple[str, ...], wanted: tuple[object, ...]
) -> None:
    write(home, "model = 'file.gguf'\ncache-type-k = 'q8_0'\n")
    args = checked_root(resolved_root(parser_of("root"), words)).args
    assert (args.model, args.models_dir, args.cache_type_k) == wanted


def test_forms_that_exclude_each_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLAMA_GRAMMAR", "root ::= 'x'")
    args = read_flags(parser_of("root"), "root", ("-j", "{}")).args
    assert args.grammar is None and args.json_schema == "{}"
    monkeypatch.setenv("DLLAMA_JSON_SCHEMA", "{}")
    with pytest.raises(ConfigError, match=r"\$DLLAMA_GRAMMAR and \$DLLAMA_JSON_SCHEMA exclude"):
        read_flags(parser_of("root"), "root", ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 99999", "port in .*config.toml: '99999' is no port"),
        ("[root]\nlog-level = 'loud'", "root.log-level in .*: 'loud' is no level"),
        ("verbose = 'perhaps'", "verbose in .*: 'perhaps' is neither true nor false"),
        ("modle = 'x'", "modle in .* is no flag of any command.*; is model meant"),
        ("[root]\nprot = 1", "root.prot in .*; is port meant"),
        ("[rooot]\nport = 1", "rooot in .* is no flag"),
        ("port = 1979-05-27", "port in .* is no value of a flag"),
        ("port = = 1", "is no TOML: .*line 1"),
        ("temp = 1\ntemperature = 2", "set the same flag"),
        ("port = [1, 2]", "'1,2' is no port"),
    ],
)
def test_mistakes_of_the_file_are_named_with_their_key(home: Path, text: str, said: str) -> None:
    write(home, text)
    with pytest.raises(ConfigError, match=said):
        read_flags(parser_of("root"), "root", ())


def test_a_key_of_another_command_is_none_of_this(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, "n-gen = '8'\nport = 1\n")
    assert value("list", "json") is False
    monkeypatch.setenv("DLLAMA_LIST_JSON", "maybe")
    with pytest.raises(ConfigError, match=r"DLLAMA_LIST_JSON: 'maybe'"):
        read_flags(parser_of("list"), "list", ())


def test_names_are_clear() -> None:
    """No variable means two things."""
    meant: dict[str, set[tuple[str | None, str]]] = defaultdict(set)
    for command, parser in PARSERS.items():
        for key in by_key(parser):
            meant[variable_of(key)].add((None, key))
            meant[variable_of(key, command)].add((command, key))
    assert [name for name, whose in meant.items() if len(whose) > 1 or name in OTHERS] == []
    assert unknown_variables(PARSERS, {"DLLAMA_CTXSIZE": "1", "DLLAMA_CTX_SIZE": "1"}) == [
        "DLLAMA_CTXSIZE"
    ]
    assert all(name.startswith(PREFIX) for name in OTHERS)


def test_a_default_that_is_written_twice_is_the_same() -> None:
    assert flags_of_worker.DEFAULT_SESSIONS == slots.DEFAULT_SESSIONS


DIFFERENT = {
    "-n": "bench: tokens to decode, as llama-bench has it",
    "-b": "bench: sequences side by side",
    "-p": "bench: prompt lengths",
    "--api-key": "a server takes many, and a client has one",
}


def test_flags_of_one_name_mean_the_same_everywhere() -> None:
    """But for defaults, which help tells, for flags that a parser calls its own, and for letters
    that docs/cli.md lists."""
    meant: dict[str, dict[object, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, parser in PARSERS.items():
        for action in parser.flags():
            if action.dest in parser.own:
                continue
            kind = (tuple(long_names(action)), action.dest, action.type, action.nargs,
                    tuple(action.choices or ()))  # fmt: skip
            for flag in action.option_strings:
                meant[flag][kind].append(command)
    found = {flag for flag, kinds in meant.items() if len(kinds) > 1}
    assert found == set(DIFFERENT), {flag: dict(meant[flag]) for flag in found ^ set(DIFFERENT)}
    text = (Path(__file__).resolve().parents[4] / "docs" / "cli.md").read_text()
    assert [flag for flag in DIFFERENT if f"`{flag}`" not in text] == []


def test_config_shows_what_holds_and_where_from(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(home, "threads = 3\n[root]\napi-key = 'secret'\n")
    monkeypatch.setenv("DLLAMA_CTX_SIZE", "64")
    assert start(["config", "--json"]) == 0
    shown = capsys.readouterr().out
    rows = {row["flag"]: row for row in json.loads(shown)["flags"]}
    assert set(rows) == {"--threads", "--ctx-size", "--api-key"} and "secret" not in shown
    assert rows["--ctx-size"]["origin"] == "$DLLAMA_CTX_SIZE"
    assert {"root", "run", "plan"} == set(rows["--ctx-size"]["commands"])
    assert start(["config", "run", "-n", "9"]) == 0
    shown = [line.strip().split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    lines = {words[0]: words for words in shown}
    assert lines["--n-predict"][1:] == ["9", "the command line"]
    assert lines["--kv-type"][1:] == ["f16", "default"] and lines["--threads"][1] == "3"
    monkeypatch.setenv("DLLAMA_CTX_SIZE", "many")
    monkeypatch.setenv("DLLAMA_WORKRES", "a")
    assert start(["config"]) == 1
    said = capsys.readouterr().err
    assert "$DLLAMA_CTX_SIZE: 'many'" in said and "DLLAMA_WORKRES is set" in said
