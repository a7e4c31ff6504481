"""llama-server's own routes: /completion, /infill and what stands beside them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import orjson
import pytest

from api.answers.stop import LineRules
from api.engines.in_process import InProcessEngineClient
from api.served_model import ModelFacts
from dllama.tokenizer.special_tokens import FimTokens, find_fim
from tests.api.serving import (
    MAX_SEQ_LEN,
    Reply,
    StepwiseClient,
    ask,
    masks,
    run,
    says,
    served,
    serving,
    serving_engine,
    tokenizer,
    until,
)
from tests.scripted_runner import ScriptedEngine

TEXT = "Hello wörld ☕! And more."

# The keys that llama-server tells.
LLAMA_SERVER_SETTINGS = {
    "seed", "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p",
    "top_n_sigma", "xtc_probability", "xtc_threshold", "typical_p", "repeat_last_n",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "mirostat",
    "mirostat_tau", "mirostat_eta", "adaptive_target", "adaptive_decay", "stop", "max_tokens",
    "n_predict", "n_keep", "n_discard", "ignore_eos", "stream", "logit_bias", "n_probs",
    "min_keep", "grammar", "grammar_lazy", "grammar_triggers", "preserved_tokens",
    "chat_format", "reasoning_format", "reasoning_in_content", "generation_prompt", "samplers",
    "speculative.types", "timings_per_token", "post_sampling_probs", "backend_sampling", "lora",
}  # fmt: skip


def complete(body: dict[str, object], text: str = TEXT, **engine: object) -> dict:
    reply = ask(ScriptedEngine(says(text), **engine), lambda s: s.post("/completion", body))  # type: ignore[arg-type]
    assert reply.status == 200, reply.data
    return reply.json


def native_events(reply: Reply) -> list[dict]:
    return [orjson.loads(line) for line in reply.lines]


def test_every_field_of_an_answer() -> None:
    prompt = tokenizer().encode("Once", add_special=True)
    answer = complete({"prompt": "Once", "return_tokens": True, "seed": 7, "stop": ["zzz"]})
    ids = tokenizer().encode(TEXT)
    assert {k: answer[k] for k in (
        "index", "content", "tokens", "id_slot", "stop", "model", "tokens_predicted",
        "tokens_evaluated", "prompt", "has_new_line", "truncated", "stop_type", "stopping_word",
        "tokens_cached",
    )} == {
        "index": 0, "content": TEXT, "tokens": ids, "id_slot": 0, "stop": True, "model": "toy",
        "tokens_predicted": len(ids), "tokens_evaluated": len(prompt),
        "prompt": "<|begin_of_text|>Once", "has_new_line": False, "truncated": False,
        "stop_type": "eos", "stopping_word": "", "tokens_cached": len(prompt) + len(ids) - 1,
    }  # fmt: skip
    settings = answer["generation_settings"]
    assert settings["seed"] == 7 and settings["stop"] == ["zzz"] and settings["n_predict"] == -1
    assert {"temperature", "top_k", "mirostat_tau", "samplers", "logit_bias"} <= settings.keys()
    assert answer["timings"]["predicted_n"] == len(ids)


def test_why_an_answer_ended() -> None:
    cut = complete({"prompt": "a", "n_predict": 3})
    assert (cut["stop_type"], cut["tokens_predicted"], cut["truncated"]) == ("limit", 3, False)
    assert cut["tokens"] == []
    word = complete({"prompt": "a", "stop": ["wörld"]})
    assert (word["stop_type"], word["stopping_word"]) == ("word", "wörld")
    assert word["content"] == "Hello "
    full = complete({"prompt": [65] * 200}, "x" * 300)
    assert full["stop_type"] == "limit" and full["truncated"] is True
    assert full["tokens_predicted"] == MAX_SEQ_LEN - 200


def test_nothing_is_told_where_only_the_prompt_is_to_be_read() -> None:
    for stream in (False, True):
        reply = ask(
            ScriptedEngine(says(TEXT)),
            lambda s, stream=stream: s.post(
                "/completion",
                {"prompt": "a", "n_predict": 0, "stream": stream, "return_tokens": True},
            ),
        )
        answer = native_events(reply)[-1] if stream else reply.json
        assert answer["content"] == "" and answer["tokens"] == []
        assert answer["tokens_predicted"] == 0 and answer["timings"]["predicted_n"] == 0
        assert answer["stop_type"] == "limit" and answer["stop"] is True


def test_prompts_of_every_form() -> None:
    engine = ScriptedEngine(says("x"))
    encode, bos = tokenizer().encode, tokenizer().bos_id

    async def body() -> None:
        async with serving_engine(engine) as server:
            for prompt, wanted, is_list in (
                ("ab", [[bos, *encode("ab")]], False),
                ([65, 66], [[65, 66]], False),
                ([65, "ab", 66], [[65, *encode("ab"), 66]], False),
                (["ab", 65], [[bos, *encode("ab"), 65]], False),
                (["a", "b"], [[bos, *encode("a")], [bos, *encode("b")]], True),
                (["a"], [[bos, *encode("a")]], True),
                ([[65, "a"], "b", [66]], [[65, *encode("a")], [bos, *encode("b")], [66]], True),
            ):
                engine.submitted.clear()
                for path in ("/completion", "/completions"):
                    reply = await server.post(path, {"prompt": prompt})
                    assert reply.status == 200, (prompt, reply.data)
                    assert isinstance(reply.json, list) == is_list
                assert [s.tokens for s in engine.submitted] == [*wanted, *wanted]
                if is_list:
                    assert [answer["index"] for answer in reply.json] == list(range(len(wanted)))
            reply = await server.post("/completion", {"prompt": "a", "n_cmpl": 3})
            assert [answer["content"] for answer in reply.json] == ["x"] * 3
            for prompt in (None, [], {}, 5, [[]], [[[65]]], ["a", None], [1.5]):
                reply = await server.post("/completion", {"prompt": prompt})
                assert reply.status == 400, prompt

    run(body)


def test_a_stream() -> None:
    body = {"prompt": "Once upon a time", "stream": True, "timings_per_token": True}
    reply = ask(ScriptedEngine(says(TEXT)), lambda s: s.post("/completion", body))
    *chunks, last = native_events(reply)
    assert b"[DONE]" not in reply.data
    assert "".join(chunk["content"] for chunk in chunks) == TEXT
    tokens = [token for chunk in chunks for token in chunk["tokens"]]
    assert tokens == tokenizer().encode(TEXT)
    assert not any(chunk["stop"] for chunk in chunks) and last["stop"] is True
    assert all(chunk["timings"]["predicted_n"] for chunk in chunks)
    assert (last["content"], last["tokens"]) == ("", [])
    assert last["tokens_predicted"] == len(tokens)


@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_progress_of_the_prompt(path: str) -> None:
    body = {"stream": True, "return_progress": True, "max_tokens": 3}
    body |= (
        {"messages": [{"role": "user", "content": "Hi"}]}
        if "chat" in path
        else {"prompt": "Once upon a time"}
    )
    reply = ask(
        ScriptedEngine(says(TEXT), max_batch=2, max_step_tokens=2),
        lambda s: s.post(path, body),
        client=StepwiseClient,
    )
    events = native_events(reply) if path == "/completion" else reply.events
    told = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert set(told[0]) == {"total", "cache", "processed", "time_ms"}
    total = told[0]["total"]
    assert [p["processed"] for p in told] == sorted({*range(0, total, 2), total})
    assert all((p["total"], p["cache"]) == (total, 0) for p in told)
    assert told[0]["time_ms"] == 0.0


@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_the_progress_of_a_prompt_of_one_step_has_a_beginning_and_an_end(path: str) -> None:
    body = {"stream": True, "return_progress": True, "max_tokens": 3, "timings_per_token": True}
    body |= (
        {"messages": [{"role": "user", "content": "Hi"}]}
        if "chat" in path
        else {"prompt": "Once upon a time"}
    )
    engine = ScriptedEngine(says(TEXT))
    for is_cached in (False, True):
        reply = ask(engine, lambda s: s.post(path, body), client=StepwiseClient)
        events = native_events(reply) if path == "/completion" else reply.events
        first, last = (event for event in events if "prompt_progress" in event)
        begin, end = first["prompt_progress"], last["prompt_progress"]
        assert begin["processed"] == begin["cache"] == (end["total"] - 1 if is_cached else 0)
        assert end["processed"] == end["total"]
        assert first["timings"]["prompt_n"] == first["timings"]["prompt_ms"] == 0
        assert first["timings"]["predicted_n"] == last["timings"]["predicted_n"] == 0
        assert last["timings"]["prompt_n"] == end["total"] - end["cache"]


def test_response_fields() -> None:
    answer = complete(
        {"prompt": "a", "response_fields": ["content", "timings/prompt_n", "no/thing", "stop"]}
    )
    n_prompt = len(tokenizer().encode("a", add_special=True))
    assert answer == {"content": TEXT, "timings/prompt_n": n_prompt, "stop": True}


@pytest.mark.parametrize("text", [TEXT, "☕☕ and more", "one two three four"])
@pytest.mark.parametrize("stop", ["zzz", "more"])
def test_a_stream_with_probabilities_has_one_character_or_token_an_event(text, stop) -> None:
    body = {"prompt": "a", "n_probs": 2, "stream": True, "temperature": 0, "stop": [stop]}
    reply = ask(ScriptedEngine(says(text)), lambda s: s.post("/completion", body))
    *chunks, last = native_events(reply)
    assert "".join(chunk["content"] for chunk in chunks) == text.partition(stop)[0]
    for chunk in chunks:
        told = chunk["completion_probabilities"]
        assert [entry["id"] for entry in told] == chunk["tokens"]
        data = b"".join(bytes(entry["bytes"]) for entry in told).decode()
        is_cut = stop == "more" and chunk is chunks[-1]  # the token that the stop string begins in
        assert data == chunk["content"] or (is_cut and data.startswith(chunk["content"]))
        assert len(told) == 1 or len(chunk["content"]) == 1  # tokens that are parts of a character
    assert last["stop"] is True and last["content"] == ""


def test_a_prompt_as_an_object() -> None:
    engine = ScriptedEngine(says("x"))
    wanted = tokenizer().encode("Once", add_special=True)

    async def body() -> None:
        async with serving_engine(engine) as server:
            told = {"prompt_string": "Once"}
            for prompt in (told, {**told, "multimodal_data": []}, [told, [65]], [[65], told]):
                engine.submitted.clear()
                reply = await server.post("/completion", {"prompt": prompt})
                assert reply.status == 200, reply.data
                assert wanted in [submit.tokens for submit in engine.submitted]
                assert isinstance(reply.json, list) == isinstance(prompt, list)
            for prompt, param in (
                ({**told, "multimodal_data": ["aGk="]}, "prompt.multimodal_data"),
                ({"prompt_string": 5}, "prompt"),
                ({"text": "Once"}, "prompt"),
            ):
                reply = await server.post("/completion", {"prompt": prompt})
                assert reply.status == 400 and reply.error["param"] == param

    run(body)


def test_settings_are_whole() -> None:
    settings = complete(
        {"prompt": "a", "n_predict": 5, "n_keep": 3, "grammar": 'root ::= "x"', "n_probs": 2,
         "dry_sequence_breakers": ["."], "logit_bias": [[65, False]]},
        "x", constraints=masks(),
    )["generation_settings"]  # fmt: skip
    assert settings.keys() >= LLAMA_SERVER_SETTINGS
    assert (settings["n_keep"], settings["n_predict"], settings["max_tokens"]) == (3, 5, 5)
    assert (settings["n_discard"], settings["adaptive_target"]) == (0, -1.0)
    assert settings["grammar"] and settings["n_probs"] == 2
    assert settings["logit_bias"] == [{"token": 65, "bias": None}]


def test_lines_that_are_indented_too_little_end_an_answer() -> None:
    text = "def f():\n    a\n\n    b\nc\n"
    engine = ScriptedEngine(says(text))
    for stream in (False, True):
        reply = ask(
            engine,
            lambda s, stream=stream: s.post(
                "/completion", {"prompt": "a", "n_indent": 4, "stream": stream}
            ),
        )
        found = native_events(reply) if stream else [reply.json]
        assert "".join(e["content"] for e in found) == "def f():\n    a\n\n    b\n"
        assert found[-1]["stop_type"] == "limit"


def test_line_rules_do_not_depend_on_the_pieces() -> None:
    text = "a\n  b\n\tc\n d\n"
    for n in range(1, len(text)):
        rules = LineRules(2, None)
        shown = "".join(rules.push(text[i : i + n], 0.0) for i in range(0, len(text), n))
        assert (shown + rules.flush(), rules.has_ended) == ("a\n  b\n", True)
    late = LineRules(0, 1.0)
    assert late.push("a\nb", 0.5) == "a\nb" and late.push("c\nd", 1.5) == "c\n" and late.has_ended
    open_end = LineRules(2, None)
    assert open_end.push("a\n  ", 0.0) + open_end.flush() == "a\n  "


def test_what_is_not_honoured_is_refused_by_name() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            for fields, param in (
                ({"n_predict": -2}, "n_predict"),
                ({"n_indent": -1}, "n_indent"),
                ({"t_max_predict_ms": "x"}, "t_max_predict_ms"),
                ({"response_fields": "content"}, "response_fields"),
                ({"return_tokens": 1}, "return_tokens"),
                ({"lora": [{"id": 0, "scale": 1}]}, "lora"),
                ({"prompt": [400]}, "prompt"),
                ({"prompt": "a b" * MAX_SEQ_LEN}, None),
            ):
                reply = await server.post("/completion", {"prompt": "a", **fields})
                assert (reply.status, reply.error["param"]) == (400, param), fields

    run(body)


FIM = FimTokens(prefix=1, suffix=2, middle=3, repo=4, separator=5)


def test_infill() -> None:
    engine = ScriptedEngine(says("x = 1"))
    encode, bos = tokenizer().encode, tokenizer().bos_id

    async def body() -> None:
        model = replace(served(InProcessEngineClient(engine)), facts=ModelFacts(fim=FIM))
        async with serving(model) as server:
            request = {"input_prefix": "def f():\n", "input_suffix": "\n", "prompt": "  "}
            reply = await server.post("/infill", request)
            assert reply.json["content"] == "x = 1"
            repo = [4, *encode("myproject\n"), 5, *encode("filename\n")]
            whole = [1, *encode("def f():\n"), *encode("  "), 2, *encode("\n"), 3]
            assert engine.submitted[-1].tokens == [bos, *repo, *whole]
            extra = [{"filename": "a.py", "text": "y"}]
            await server.post("/infill", {**request, "input_extra": extra})
            assert engine.submitted[-1].tokens[:-len(whole)] == [
                bos, 4, *encode("myproject\n"), 5, *encode("a.py\n"), *encode("y"),
                5, *encode("filename\n"),
            ]  # fmt: skip
            for fields, param in (
                ({"input_suffix": None}, "input_suffix"),
                ({"input_prefix": None}, "input_prefix"),
                ({"input_prefix": 5}, "input_prefix"),
                ({"input_extra": {}}, "input_extra"),
                ({"input_extra": [{"text": 5}]}, "input_extra[0].text"),
                ({"input_extra": [{"name": "x"}]}, "input_extra[0]"),
            ):
                reply = await server.post("/infill", {**request, **fields})
                assert (reply.status, reply.error["param"]) == (400, param), fields

    run(body)
    request = {"input_prefix": "", "input_suffix": ""}
    reply = ask(ScriptedEngine(says("x")), lambda s: s.post("/infill", request))
    assert (reply.status, reply.error["type"]) == (501, "not_supported_error")


def test_tokens_around_a_hole_are_found() -> None:
    qwen = ["a", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|repo_name|>"]
    assert find_fim({}, qwen) == FimTokens(prefix=1, suffix=3, middle=2, repo=4)
    named = {f"tokenizer.ggml.{key}_token_id": i for i, key in enumerate(["prefix", "suffix"])}
    assert find_fim(named, ["x", "y", "▁<MID>"]) == FimTokens(prefix=0, suffix=1, middle=2)
    assert find_fim(named, ["x", "y", "z"]) is None
    assert find_fim({"tokenizer.ggml.fim_pre_token_id": 99}, qwen) == find_fim({}, qwen)


def test_slots_and_metrics_tell_what_runs() -> None:
    gate = threading.Semaphore(0)
    engine = ScriptedEngine(says("x", ends=False), max_len=10**9, gate=gate)

    async def body() -> None:
        facts = ModelFacts(n_slots=2)
        async with serving(replace(served(InProcessEngineClient(engine)), facts=facts)) as server:
            idle = (await server.get("/slots")).json
            assert [(row["id"], row["is_processing"]) for row in idle] == [(0, False), (1, False)]
            assert (await server.get("/slots?fail_on_no_slot=1")).status == 200
            waiting = [
                asyncio.create_task(server.post("/completion", {"prompt": "a", "n_predict": 5}))
                for _ in range(3)
            ]
            await until(lambda: len(engine.running) == 3)
            rows = (await server.get("/slots")).json
            assert [row["is_processing"] for row in rows] == [True, True]
            assert rows[0]["next_token"][0]["n_remain"] == 5
            assert (await server.get("/slots?fail_on_no_slot=1")).status == 503
            values = metrics_of(await server.get("/metrics"))
            assert values["llamacpp:requests_processing"] == 2
            assert values["llamacpp:requests_deferred"] == 1
            gate.release(2)  # two steps: the prompts are read, and every first token is sent
            while rows[0]["next_token"][0]["n_remain"] == 5:
                rows = (await server.get("/slots")).json
            gate.release(100)
            answers = await asyncio.gather(*waiting)
            assert sorted(answer.json["id_slot"] for answer in answers) == [0, 1, 2]
            values = metrics_of(await server.get("/metrics"))
            assert values["llamacpp:tokens_predicted_total"] == 15
            n_prompt = len(tokenizer().encode("a", add_special=True))
            assert values["llamacpp:prompt_tokens_total"] == 3 * n_prompt
            assert values["llamacpp:requests_processing"] == 0
            assert values["dllama:requests_total"] == 3
            assert values["llamacpp:predicted_tokens_seconds"] > 0
            again = metrics_of(await server.get("/metrics"))
            assert again["llamacpp:predicted_tokens_seconds"] == 0  # since the last scrape

    run(body)


def metrics_of(reply: Reply) -> dict[str, float]:
    """Every sample, as Prometheus' own parser reads the text where it is there."""
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = reply.data.decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert text.count("# HELP ") == text.count("# TYPE ") == len(lines)
    return {line.split()[0]: float(line.split()[1]) for line in lines}


def test_props_and_what_there_is_not() -> None:
    async def body() -> None:
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            props = (await server.get("/props")).json
            assert props["default_generation_settings"]["n_ctx"] == MAX_SEQ_LEN
            assert props["default_generation_settings"]["params"]["top_k"] == 40
            assert props["total_slots"] == 1 and props["model_alias"] == "toy"
            assert (await server.get("/lora-adapters")).json == []
            for path in ("/rerank", "/v1/audio/transcriptions", "/lora-adapters", "/props"):
                reply = await server.post(path, {})
                assert (reply.status, reply.error["type"]) == (501, "not_supported_error")

    run(body)
