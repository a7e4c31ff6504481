"""Scripts that start llama-server start this server: what changes nothing is taken, what would
change an answer is refused by its name, contexts are shared as there, and its environment is
read."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dllama.cli.flags.contexts import with_context_flags
from dllama.cli.flags.engine import engine_settings
from dllama.cli.flags.hub import use_hub_flags
from dllama.cli.flags.llama_server import ANY, FOREIGN, Foreign, taken_flags
from dllama.cli.flags.root import build_parser, read_flags
from dllama.cli.flags.server import server_settings
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.server.api_config import answer_defaults, api_config
from dllama.cli.sources.llama_variables import SWITCHES, VALUES
from dllama.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]

# How a script of llama-server's users starts it.
SCRIPT = shlex.split(r"""
    --model x.gguf --host 0.0.0.0,::1 --port 8081 -c 8192 -np 4 -b 2048 -ub 512 -fa on -ngl 99
    -ctk q8_0 -ctv q8_0 --mlock --no-mmap --cont-batching --threads-batch 8 --jinja --metrics
    --slots --embeddings --log-disable --log-file x.log --no-webui --alias mine,other --tags a,b
    --temp 0.6 --top-k 20 --top-p 0.9 --min-p 0 --repeat-penalty 1.05 --seed 42 -n 512
    --api-prefix /llm/ --reasoning-format none --reasoning off --reasoning-budget 0
    --no-prefill-assistant --pooling last --spec-draft-n-max 4 --cache-reuse 256 --no-warmup
    --numa distribute --poll 50 --prio 2 --chat-template-kwargs '{"k":1}' --rope-scaling none
    --verbose --timeout 600
""")


def engine(*words: str) -> EngineSettings:
    args = build_parser().parse_args(list(words))
    return with_context_flags(engine_settings(args), args)


def server(*words: str) -> ServerSettings:
    return server_settings(build_parser().parse_args(list(words)))


def taken(*words: str) -> list[str]:
    return list(taken_flags(build_parser().parse_args(list(words))))


def words_of(row: Foreign, name: str, value: str = "1") -> list[str]:
    n = row.n_values if isinstance(row.n_values, int) else 1
    return [name, *[value] * n]


def test_a_script_of_llama_server() -> None:
    assert {"-ub", "-fa", "-ngl", "--mlock", "--no-mmap", "--metrics"} <= set(taken(*SCRIPT))
    found = engine(*SCRIPT)
    assert (found.max_batch, found.ctx_size, found.kv_tokens) == (4, 2048, 8192)
    assert (found.kv_type, found.draft_max) == ("q8_0", 4)
    told = server(*SCRIPT)
    assert told.hosts == ("0.0.0.0", "::1") and told.port == 8081
    assert told.aliases == ("mine", "other") and told.tags == ("a", "b")
    assert told.api_prefix == "/llm" and not told.has_page and told.is_verbose
    defaults = told.defaults
    assert defaults.fields == {
        "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.0, "repeat_penalty": 1.05,
        "seed": 42,
    }  # fmt: skip
    assert defaults.n_predict == 512 and defaults.pooling == "last" and not defaults.prefills
    assert defaults.reasoning_format == "none"
    assert defaults.template_kwargs == {"k": 1, "enable_thinking": False}
    config, meant = api_config(told), answer_defaults(told.defaults)
    assert meant.fields["seed"] == 42 and config.stall_timeout_s == 600
    assert config.prefix == "/llm" and meant.pooling == "last"


@pytest.mark.parametrize("row", FOREIGN, ids=lambda row: row.names.split()[0])
def test_every_foreign_flag_is_taken_or_refused_by_its_name(row: Foreign) -> None:
    for name in row.names.split():
        if row.neutral is ANY:
            assert taken(*words_of(row, name)) == [name]
            continue
        with pytest.raises(ConfigError, match=re.escape(name)) as refusal:
            taken(*words_of(row, name, "17"))
        assert row.why in str(refusal.value) and str(refusal.value).endswith("Leave it out.")
        for value in row.neutral:
            assert taken(*words_of(row, name, value)) == [name]


def test_no_foreign_flag_is_one_of_ours() -> None:
    names = [name for row in FOREIGN for name in row.names.split()]
    assert len(set(names)) == len(names)
    help_text = build_parser().format_help()
    assert not [name for name in names if re.search(rf"(?m)^ +{re.escape(name)}\b", help_text)]


def test_the_document_tells_every_foreign_flag() -> None:
    shown = (ROOT / "docs" / "llama-server.md").read_text()
    for row in FOREIGN:
        for name in row.names.split():
            assert f"`{name}`" in shown, name
    for name in (*VALUES, *SWITCHES):
        assert f"`{name}`" in shown, name


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("-c 512 -np 2", (256, 512, 2)),
        ("-c 512 -np 2 -kvu", (512, 512, 2)),
        ("-c 512 -np 2 -no-kvu", (256, 512, 2)),
        ("-c 512", (512, 0, 16)),
        ("-c 0 -np 3", (0, 0, 3)),
        ("-np -1", (0, 0, 16)),
        ("-c 512 -kvu", (512, 512, 16)),
        ("-c 512 --kv-unified-per-slot 128", (128, 0, 16)),
        ("-c 512 -np 2 --kv-tokens 1024", (256, 1024, 2)),
    ],
)
def test_contexts_are_shared(words: str, wanted: tuple[int, int, int]) -> None:
    found = engine(*words.split())
    assert (found.ctx_size, found.kv_tokens, found.max_batch) == wanted


def test_a_batch_is_at_most_what_it_is_here_and_at_least_a_token_of_each() -> None:
    assert engine("-b", "64").max_step_tokens == 64
    assert engine("-b", "2048").max_step_tokens == engine().max_step_tokens
    assert engine("-b", "1", "-np", "8").max_step_tokens == 8


def test_types_of_a_cache() -> None:
    assert engine("-ctk", "Q8_0").kv_type == "q8_0"
    assert engine("-ctk", "f16", "-ctv", "f16").kv_type == "f16"
    for words in (("-ctk", "q4_0"), ("-ctk", "q8_0", "-ctv", "f16")):
        with pytest.raises(ConfigError, match="--cache-type-k and --cache-type-v"):
            engine(*words)


def test_the_environment_counts_after_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "LLAMA_ARG_HOST": "192.0.2.1", "LLAMA_ARG_CTX_SIZE": "512", "LLAMA_ARG_N_PARALLEL": "2",
        "LLAMA_ARG_CONTEXT_SHIFT": "true", "LLAMA_ARG_NO_CACHE_PROMPT": "", "LLAMA_ARG_UI": "off",
        "LLAMA_ARG_ENDPOINT_SLOTS": "0", "LLAMA_ARG_N_GPU_LAYERS": "99", "LLAMA_ARG_TOP_K": "",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_flags([]).server.hosts == ("192.0.2.1",)
    found = read_flags(["--host", "::1", "--slots"]).server
    assert found.hosts == ("::1",) and found.shows_slots and not found.has_page
    assert found.defaults.fields == {"cache_prompt": False}
    contexts = read_flags([]).engine
    assert contexts.ctx_size == 256 and contexts.context_shift
    monkeypatch.setenv("DLLAMA_HOST", "192.0.2.2")
    monkeypatch.setenv("LLAMA_ARG_MMPROJ", "x")
    with pytest.raises(ConfigError, match="--mmproj is a flag"):
        read_flags(["--mlock"])
    monkeypatch.delenv("LLAMA_ARG_MMPROJ")
    assert read_flags([]).server.hosts == ("192.0.2.2",), "our own variable counts before theirs"
    monkeypatch.setenv("LLAMA_ARG_PORT", "many")
    with pytest.raises(ConfigError, match=r"\$LLAMA_ARG_PORT: 'many' is no port"):
        read_flags([])


@pytest.mark.parametrize(
    "flag", sorted({*VALUES.values(), *(f for p in SWITCHES.values() for f in p if f)})
)
def test_variables_name_flags_that_there_are(flag: str) -> None:
    assert flag in build_parser()._option_string_actions


def test_forms_and_biases_are_defaults_of_requests(tmp_path: Path) -> None:
    file = tmp_path / "g.gbnf"
    file.write_bytes(b"\xef\xbb\xbf" + b'root ::= "x"')
    words = ["--grammar-file", str(file), "-l", "15+1", "--logit-bias", "7-2.5", "--ignore-eos"]
    assert server(*words, "--keep", "3").defaults.fields == {
        "grammar": 'root ::= "x"', "logit_bias": [[15, 1.0], [7, -2.5]], "ignore_eos": True,
        "n_keep": 3,
    }  # fmt: skip
    assert server("-j", '{"type": "object"}').defaults.fields == {
        "json_schema": '{"type": "object"}'
    }
    with pytest.raises(ConfigError, match="cannot be read"):
        server("--grammar-file", str(tmp_path / "missing"))


@pytest.mark.parametrize(
    "words",
    [("-l", "x+1"), ("-n", "-3"), ("--chat-template-kwargs", "[1]"), ("--host", ","),
     ("--api-prefix", "llm"), ("-np", "0"), ("--seed", "x"), ("--chat-template-kwargs", "{")],
)  # fmt: skip
def test_wrong_values_are_errors_of_the_command_line(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit):
        server(*words)


def test_defaults_that_no_request_may_say_stop_the_start() -> None:
    for words in (("-j", "{"), ("--repeat-penalty", "0"), ("--repeat-last-n", "-2")):
        with pytest.raises(ConfigError, match="by default"):
            answer_defaults(server(*words).defaults)
    for words in (("--reasoning-budget", "100"), ("--pooling", "rank")):
        with pytest.raises(ConfigError, match=words[0]):
            server(*words)


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ("-hf u/r:Q4_0", "hf.co/u/r:Q4_0"),
        ("--hf-repo u/r:Q4_0 --hf-file a.gguf", "hf.co/u/r/a.gguf"),
        ("-mu https://h/a.gguf", "https://h/a.gguf"),
    ],
)
def test_flags_of_downloads_are_a_name_that_is_pulled(words: str, model: str) -> None:
    args = build_parser().parse_args(words.split())
    use_hub_flags(args)
    assert (args.model, args.pull) == (model, True)


@pytest.mark.parametrize("words", ["-hff a.gguf", "-hf u/r -mu https://h/a.gguf"])
def test_flags_of_downloads_that_do_not_fit(words: str) -> None:
    with pytest.raises(ConfigError):
        use_hub_flags(build_parser().parse_args(words.split()))
