"""The commands as programs: answers on stdout, sentences on stderr, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.bench import tests as bench_tests
from tests.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf")


def dllama(*words: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    code = "import sys; from dllama.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, words)]
    where = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **where)  # type: ignore[call-overload,no-any-return]


def test_run_answers_on_stdout_alone(toy: Path) -> None:
    words = ("run", "-m", toy, "--raw", "--temperature", 0, "-n", 5, "--verbose", "hello")
    first, again = dllama(*words), dllama(*words, "--tokenizer", toy)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout and first.stdout.endswith("\n")
    assert "tokens/s" in first.stderr and "tokens/s" not in first.stdout


def test_a_dash_is_standard_input(toy: Path) -> None:
    words = ("run", "-m", toy, "--raw", "--temperature", 0, "-n", 5)
    wanted = dllama(*words, "hello").stdout
    assert dllama(*words, "-", stdin="hello\n").stdout == wanted
    assert dllama(*words, "-", stdin="\ufeffhello\n").stdout == wanted, "a byte order mark"
    assert dllama(*words[1:], "-p", "hello").stdout == wanted, "without a command"
    assert dllama(*words[1:], stdin="hello\n").stdout == wanted
    both = dllama(*words, "a\nhello").stdout
    assert dllama(*words, "hello", stdin="a\n").stdout == both
    assert dllama(*words[1:], "-p", "hello", stdin="a\n").stdout == both


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "-m", "/nowhere.gguf", "hi"), "no file at /nowhere.gguf"),
        (("bench", "-m", "TOY", "-b", "0"), "batches have 1 to 64"),
        (("bench", "-m", "TOY", "-p", "9999"), "context of 9999 tokens"),
        (("run", "-m", "TOY", "--workers", "user@host", "hi"), "no worker address"),
        (("run", "-m", "TOY", "--workers", "h:1,h:1", "hi"), "named twice"),
        (("run", "-m", "TOY", "--workers", "", "hi"), "--workers: '' names no machine"),
        (("run", "-m", "TOY", "--workers", " , ", "hi"), "leave the flag out"),
        (("run", "-m", "TOY", "--advertise", "10.0.0.1:9998", "hi"), "without a port"),
        (("run", "-m", "TOY", "--shares", "1,2", "hi"), "--shares names 2 machines"),
        (("run", "-m", "TOY", "--step-tokens", "8", "hi"), "--max-batch 16"),
        (("inspect", "/nowhere.gguf"), "no file at"),
        (("perplexity", "-m", "TOY", "-f", "/nowhere", "-c", "32"), "/nowhere cannot be read"),
        (("perplexity", "-m", "TOY", "-f", "TOY", "-c", "32"), "is no text in UTF-8"),
        (("perplexity", "-m", "TOY", "-f", __file__, "-c", "9999"), "windows of 9999 tokens"),
        (("nonsense",), "invalid choice"),
        ((), "there is no prompt"),
        (("--server", "--chat"), "exclude each other"),
        (("--server", "-p", "hi"), "-p is a prompt"),
        (("up", "--magic"), "unrecognized arguments: --magic"),
        (("--chat", "--port", "many"), "'many' is no port"),
        (("run", "-m", "TOY", "--typical-p", "2", "hi"), "typical_p is 2.0"),
        (("run", "-m", "TOY", "--samplers", "top_k,magic", "hi"), "is no list of penalties"),
    ],
)
def test_mistakes_get_a_sentence(toy: Path, words: tuple[str, ...], said: str) -> None:
    run = dllama(*(str(toy) if word == "TOY" else word for word in words))
    assert run.returncode in (1, 2)
    assert said in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_bench_prints_a_list_of_objects(toy: Path) -> None:
    run = dllama(
        "bench", "-m", toy, "-p", 16, "-n", 4, "-d", "0,32", "-b", "1,2", "-r", 2, "-t", 1, "--json"
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)
    names = [row["test"] for row in rows]
    assert names == ["pp16", "tg4", "tg4xb2", "pp16@d32", "tg4@d32", "tg4xb2@d32"]
    for row in rows:
        assert row["tokens_per_s"] > 0 and row["threads"] == 1 and row["nodes"] == 1
        assert {"stdev", "gb_per_s", "compute_ms", "wait_ms", "network_ms"} <= set(row)


def test_perplexity_is_the_same_however_it_is_printed(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("a b c hello " * 40)
    words = ("perplexity", "-m", toy, "-f", tmp_path / "text", "-c", 32, "--windows", 2, "-t", 1)
    plain, found = dllama(*words), json.loads(dllama(*words, "--json").stdout)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.startswith(f"perplexity {found['perplexity']:.4f} ± ")
    assert (found["n_windows"], found["n_tokens"]) == (2, 30)
    assert "window 2 of 2" in plain.stderr and "window" not in plain.stdout.partition("(")[0]
    (tmp_path / "text").write_text("hello")
    short = dllama(*words)
    assert short.returncode and "too few for one window" in " ".join(short.stderr.split())


def test_inspect_tells_the_sizes(toy: Path) -> None:
    facts = json.loads(dllama("inspect", toy, "--json").stdout)
    assert facts["arch"] == "llama" and facts["config"]["n_layers"] == 2


def test_benches_cover_every_combination() -> None:
    names = [t.name for t in bench_tests([8], [4], [0, 64], [1, 3])]
    assert names == ["pp8", "tg4", "tg4xb3", "pp8@d64", "tg4@d64", "tg4xb3@d64"]


@pytest.mark.parametrize("command", ["run", "bench", "root", "worker"])
def test_a_mistyped_number_of_threads_is_told_by_its_flag(command: str) -> None:
    done = dllama(command, "-t", 9999)
    assert done.returncode == 2
    assert "-t/--threads: 9999 threads are more than 1024" in done.stderr
