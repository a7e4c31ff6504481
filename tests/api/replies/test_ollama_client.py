"""The official client of Ollama against a listening server."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from api.answers.reasoning import TAGS
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.served_model import ModelFacts
from api.tools.dialects import HERMES
from dllama.chat.chat_template import ChatTemplate
from dllama.formats.gguf_metadata import GgufMetadata
from dllama.tokenizer.special_tokens import FimTokens
from tests.api.listening import listening, listening_model
from tests.api.serving import (
    MAX_SEQ_LEN,
    VOCAB_SIZE,
    ClientClass,
    ImpatientClient,
    StepwiseClient,
    masks,
    says,
    served,
    tokenizer,
)
from tests.scripted_runner import DIM, ScriptedEngine, with_logprobs

ollama = pytest.importorskip("ollama", reason="the official client is a test extra")

TEXT = "Hello wörld ☕! And more."
HI = [{"role": "user", "content": "Hi"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
SAID = "<think>\nHm, < 3.\n</think>\n\nLet me look.\n" + CALL + "\n" + CALL
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.reasoning_content }}"
    "{% for c in m.tool_calls %}{{ c.id }}={{ c.function.name }}{% endfor %}"
    "{{ m.tool_call_id }}{{ m.name }}\n{% endfor %}{{ tools }}<tool_call> <think>"
    "{{ enable_thinking }}{{ reasoning_effort }}.\nassistant:"
)


def weather(city: str) -> str:
    """
    Tells the weather.

    Args:
      city: The name of the city.
    """
    return f"sunny in {city}"


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(says(TEXT), max_len=10**6, constraints=masks())


@pytest.fixture(scope="module")
def url(engine: ScriptedEngine) -> Iterator[str]:
    with listening(engine, ApiConfig(api_keys=("secret",))) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[object]:
    with ollama.Client(host=url, headers={"Authorization": "Bearer secret"}) as client:
        yield client


@contextmanager
def thinking_client(
    text: str = SAID, *, client: ClientClass = InProcessEngineClient, knows_effort: bool = False
) -> Iterator[tuple[object, ScriptedEngine]]:
    engine = ScriptedEngine(says(text), max_len=2048, constraints=masks())
    model = replace(
        served(client(engine)),
        chat_template=ChatTemplate(TEMPLATE),
        tool_dialect=HERMES,
        think_tags=TAGS[0],
        knows_effort=knows_effort,
        max_seq_len=2048,
    )
    with listening_model(model) as url, ollama.Client(host=url) as official:
        yield official, engine


def prompt_of(engine: ScriptedEngine) -> str:
    """What the model read last."""
    return tokenizer().decode(engine.submitted[-1].tokens)


# ---- chats
def test_a_chat(client, engine) -> None:
    asked = [
        {"role": "system", "content": "Be brief."},
        *HI,
        {"role": "assistant", "content": "Hello."},
        ollama.Message(role="user", content="And?"),
    ]
    answer = client.chat("toy", asked)
    assert (answer.message.role, answer.message.content) == ("assistant", TEXT)
    assert (answer.model, answer.done, answer.done_reason) == ("toy:latest", True, "stop")
    assert answer.prompt_eval_count == len(engine.submitted[-1].tokens)
    assert answer.eval_count == len(tokenizer().encode(TEXT))
    parts = answer.load_duration + answer.prompt_eval_duration + answer.eval_duration
    assert answer.eval_duration > 0 and parts <= answer.total_duration + 1
    age_s = (datetime.now(UTC) - datetime.fromisoformat(answer.created_at)).total_seconds()
    assert 0 <= age_s < 60
    for piece in ("system\nBe brief.", "user\nHi", "assistant\nHello.", "user\nAnd?"):
        assert piece in prompt_of(engine)


def test_a_streamed_chat(client) -> None:
    *parts, last = client.chat("toy:latest", HI, stream=True)
    assert parts and "".join(part.message.content for part in parts) == TEXT
    assert not any(part.done for part in parts)
    assert last.done and last.done_reason == "stop" and last.message.content == ""
    assert last.eval_count == len(tokenizer().encode(TEXT))


def test_the_asynchronous_client(url: str) -> None:
    async def body() -> tuple[str, str]:
        client = ollama.AsyncClient(host=url, headers={"Authorization": "Bearer secret"})
        async with client:
            stream = await client.chat("toy", HI, stream=True)
            streamed = "".join([part.message.content async for part in stream])
            return streamed, (await client.generate("toy", "Hi")).response

    assert asyncio.run(body()) == (TEXT, TEXT)


def test_the_beginning_of_an_answer_is_continued(client, engine) -> None:
    client.chat("toy", [*HI, {"role": "assistant", "content": "He"}])
    assert prompt_of(engine).endswith("assistant\nHe")
    client.chat("toy", [*HI, {"role": "assistant", "content": ""}])
    assert prompt_of(engine).endswith("Hi<|im_end|>\n<|im_start|>assistant\n")


def test_why_it_stopped(client) -> None:
    cut = client.chat("toy", HI, options={"num_predict": 3})
    assert (cut.done_reason, cut.eval_count) == ("length", 3)
    word = client.chat("toy", HI, options={"stop": ["wörld", "zzz"]})
    assert (word.done_reason, word.message.content) == ("stop", "Hello ")
    assert client.chat("toy", HI, options={"stop": "wörld"}).message.content == "Hello "
    for unlimited in (-1, -2, 0):
        said = client.chat("toy", HI, options={"num_predict": unlimited})
        assert (said.done_reason, said.message.content) == ("stop", TEXT)


def test_options_reach_the_sampler(client, engine) -> None:
    options = ollama.Options(
        temperature=0.5, top_k=7, top_p=0.6, typical_p=0.7, repeat_last_n=9, repeat_penalty=1.2,
        presence_penalty=0.1, frequency_penalty=0.2, mirostat=2, mirostat_tau=3.0,
        mirostat_eta=0.2, seed=42, num_keep=5, tfs_z=1.0, num_ctx=4096, num_gpu=1, num_thread=8,
        numa=False, use_mmap=True, low_vram=False, penalize_newline=True,
    )  # fmt: skip
    client.chat("toy", HI, options=options)
    submit = engine.submitted[-1]
    for name in (
        "temperature", "top_k", "top_p", "typical_p", "repeat_last_n", "repeat_penalty",
        "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta",
    ):  # fmt: skip
        assert getattr(submit.sampling, name) == getattr(options, name), name
    assert (submit.sampling.seed, submit.n_keep) == (42, 5)
    client.chat("toy", HI, options={"min_p": 0.3, "xtc_probability": 0.4, "seed": -5, "new": 1})
    assert engine.submitted[-1].sampling.min_p == 0.3
    assert engine.submitted[-1].sampling.xtc_probability == 0.4


def test_options_that_cannot_be_honoured_are_named(client) -> None:
    wrong = {
        "options.tfs_z": {"tfs_z": 0.9},
        "options.temperature": {"temperature": "hot"},
        "options.num_predict": {"num_predict": "all"},
        "options.stop": {"stop": [1]},
    }
    for path, options in wrong.items():
        with pytest.raises(ollama.ResponseError, match=f"`{path}`") as refused:
            client.chat("toy", HI, options=options)
        assert refused.value.status_code == 400


def test_forms(client, engine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    for form in ("json", schema):
        client.chat("toy", HI, format=form, options={"num_predict": 200})
        assert engine.submitted[-1].grammar is not None
    client.generate("toy", "Hi", format=schema, options={"num_predict": 200})
    assert '"a"' in engine.submitted[-1].grammar
    client.chat("toy", HI, format="")
    assert engine.submitted[-1].grammar is None
    with pytest.raises(ValueError):  # the client's own check
        client.chat("toy", HI, format="xml")


def test_images_are_refused_by_name(client) -> None:
    with pytest.raises(ollama.ResponseError, match=r"`messages\[0\].images` holds images"):
        client.chat("toy", [{"role": "user", "content": "What is it?", "images": ["aGk="]}])
    with pytest.raises(ollama.ResponseError, match="`images` holds images") as refused:
        client.generate("toy", "What is it?", images=["aGk="])
    assert refused.value.status_code == 400
    assert client.chat("toy", [{**HI[0], "images": []}]).message.content == TEXT


def test_probabilities() -> None:
    ids = tokenizer().encode(TEXT)
    other = max(set(range(VOCAB_SIZE)) - set(ids))
    rows = [with_logprobs({token: -0.5, other: -1.5}, VOCAB_SIZE) for token in ids]
    engine = ScriptedEngine(lambda submit: [*rows, *says("")(submit)])
    asked = {"logprobs": True, "top_logprobs": 2, "options": {"temperature": 0}}
    with listening(engine) as url, ollama.Client(host=url) as client:
        whole = client.chat("toy", HI, **asked).logprobs
        parts = list(client.generate("toy", "Hi", stream=True, **asked))
        plain = client.chat("toy", HI, logprobs=True, options={"temperature": 0})
    streamed = [entry for part in parts for entry in part.logprobs or []]
    for told in (whole, streamed):
        assert [entry.logprob for entry in told] == pytest.approx([-0.5] * len(ids), abs=1e-6)
        assert [len(entry.top_logprobs) for entry in told] == [2] * len(ids)
    assert [e.token for e in whole] == [e.token for e in streamed]
    assert all(not entry.top_logprobs for entry in plain.logprobs)


# ---- tools and thoughts
def test_tools_and_thoughts() -> None:
    with thinking_client() as (client, engine):
        answer = client.chat("toy", HI, tools=[weather], think=True)
        assert answer.message.thinking == "Hm, < 3."
        assert answer.message.content == "Let me look."
        assert answer.done_reason == "stop"
        calls = answer.message.tool_calls
        assert [(c.function.name, c.function.arguments) for c in calls] == [
            ("weather", {"city": "Zürich"})
        ] * 2
        assert "The name of the city." in prompt_of(engine)
        results = [
            {"role": "tool", "tool_name": "weather", "content": f"sunny {i}"} for i in range(2)
        ]
        client.chat("toy", [*HI, answer.message, *results], tools=[weather])
        said = prompt_of(engine)
    assert "Let me look.Hm, < 3.call_0=weathercall_1=weather\n" in said
    assert "tool: sunny 0call_0weather\ntool: sunny 1call_1weather\n" in said


def test_streamed_tools_and_thoughts() -> None:
    with thinking_client(client=StepwiseClient) as (client, _):
        *parts, last = client.chat("toy", HI, tools=[weather], stream=True)
    assert "".join(part.message.thinking or "" for part in parts) == "Hm, < 3."
    assert "".join(part.message.content for part in parts).strip() == "Let me look."
    calls = [call for part in parts for call in part.message.tool_calls or []]
    assert [call.function.arguments for call in calls] == [{"city": "Zürich"}] * 2
    assert last.done and not last.message.tool_calls


def test_streamed_tools_have_their_numbers() -> None:
    """As in the whole answer: those who collect the parts tell calls apart by them."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    with thinking_client() as (client, _):
        body = {"model": "toy", "messages": HI, "tools": [tool], "stream": True}
        lines = client._client.post("/api/chat", json=body).text.splitlines()
    parts = [json.loads(line)["message"] for line in lines]
    calls = [call for part in parts for call in part.get("tool_calls", ())]
    assert [call["function"]["index"] for call in calls] == [0, 1]


@pytest.mark.parametrize(
    ("think", "knows_effort", "told"),
    [(True, False, "True."), (False, False, "False."), ("high", False, "True."),
     ("high", True, "Truehigh."), (True, True, "True."), (None, True, "True.")],
)  # fmt: skip
def test_think_sets_the_templates_variables(think, knows_effort, told) -> None:
    with thinking_client(knows_effort=knows_effort) as (client, engine):
        client.chat("toy", HI, think=think)
        assert f"<think>{told}\n" in prompt_of(engine)
        answer = client.generate("toy", "Hi", think=think)
        assert f"<think>{told}\n" in prompt_of(engine)
    assert answer.thinking == "Hm, < 3." and answer.response.startswith("Let me look.")


def test_a_model_without_thoughts_says_so(client) -> None:
    for think in (True, "low"):
        with pytest.raises(ollama.ResponseError, match="does not support thinking"):
            client.chat("toy", HI, think=think)
    assert client.chat("toy", HI, think=False).message.content == TEXT
    with pytest.raises(ollama.ResponseError, match="`think` must be"):
        client.chat("toy", HI, think="hard")


# ---- texts
def test_a_prompt_is_the_users_message(client, engine) -> None:
    answer = client.generate("toy", "Hi", system="Be brief.")
    assert (answer.response, answer.done_reason) == (TEXT, "stop")
    assert "system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>" in prompt_of(engine)
    *parts, last = client.generate("toy", "Hi", stream=True)
    assert "".join(part.response for part in parts) == TEXT and last.response == ""


def test_a_conversation_goes_on_with_its_context(client, engine) -> None:
    first = client.generate("toy", "Hi", system="Be brief.")
    *_, second = client.generate("toy", "And?", context=first.context, stream=True)
    said = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        f"<|im_start|>assistant\n{TEXT}<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert prompt_of(engine).removeprefix("<|begin_of_text|>") == said
    answer = tokenizer().encode(TEXT)
    assert second.context == [*engine.submitted[-1].tokens, *answer]
    again = client.generate("toy", "And?", system="Be brief.", context=first.context)
    assert prompt_of(engine).count("Be brief.") == 1 and again.context == second.context
    with pytest.raises(ollama.ResponseError, match="`context` has the token id 9999"):
        client.generate("toy", "And?", context=[9999])


def test_a_raw_prompt(client, engine) -> None:
    answer = client.generate("toy", "Once upon", raw=True)
    assert answer.context is None and answer.response == TEXT
    assert prompt_of(engine).removeprefix("<|begin_of_text|>") == "Once upon"
    for more in ({"system": "x"}, {"template": "x"}, {"context": [1]}, {"suffix": "x"}):
        with pytest.raises(ollama.ResponseError, match=f"`{next(iter(more))}` has no place"):
            client.generate("toy", "Once upon", raw=True, **more)


def test_a_template_of_the_request(client, engine) -> None:
    template = "{{ if .System }}S:{{ .System }} {{ end }}U:{{ .Prompt }} A:{{ .Response }}END"
    client.generate("toy", "Hi", template=template)
    assert prompt_of(engine).removeprefix("<|begin_of_text|>") == "U:Hi A:"
    client.generate("toy", "Hi", template=template, system="Be brief.")
    assert prompt_of(engine).removeprefix("<|begin_of_text|>") == "S:Be brief. U:Hi A:"
    with pytest.raises(ollama.ResponseError, match="does not know"):
        client.generate("toy", "Hi", template="{{ range .Messages }}x{{ end }}")


def test_a_hole_is_filled_where_the_model_can(client) -> None:
    with pytest.raises(ollama.ResponseError, match="fill-in-the-middle") as refused:
        client.generate("toy", "def f(", suffix="return 1")
    assert refused.value.status_code == 501
    engine = ScriptedEngine(says(TEXT))
    model = replace(served(InProcessEngineClient(engine)), facts=ModelFacts(fim=FimTokens(1, 2, 3)))
    with listening_model(model) as url, ollama.Client(host=url) as code:
        assert code.generate("toy", "def f(", suffix="return 1").response == TEXT
        encode = tokenizer().encode
        hole = [1, *encode("def f("), 2, *encode("return 1"), 3]
        assert engine.submitted[-1].tokens[-len(hole) :] == hole
        assert "insert" in code.show("toy").capabilities


def test_an_empty_prompt_loads_and_unloads(client, engine) -> None:
    n_before = len(engine.submitted)
    for kept, reason in ((None, "load"), (0, "unload"), ("0s", "unload"), ("5m", "load"),
                         (-1, "load"), (1.5, "load")):  # fmt: skip
        told = client.generate("toy", keep_alive=kept)
        assert (told.response, told.done, told.done_reason) == ("", True, reason)
        chat = client.chat("toy", [], keep_alive=kept)
        assert (chat.message.content, chat.done_reason) == ("", reason)
        [only] = client.generate("toy", keep_alive=kept, stream=True)
        assert only.done_reason == reason
    assert len(engine.submitted) == n_before
    assert [m.model for m in client.ps().models] == ["toy:latest"]  # as the header says
    with pytest.raises(ollama.ResponseError, match="`keep_alive` must be"):
        client.generate("toy", keep_alive="for long")
    assert client.chat("toy", HI, keep_alive=0).message.content == TEXT


# ---- vectors
def test_embeddings(client, engine) -> None:
    two = client.embed("toy", ["One text.", "Another."])
    assert two.model == "toy:latest" and len(two.embeddings) == 2
    for vector in two.embeddings:
        assert len(vector) == DIM
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)
    assert two.prompt_eval_count == sum(len(s.tokens) for s in engine.submitted[-2:])
    [one] = client.embed("toy", "One text.").embeddings
    assert one == pytest.approx(two.embeddings[0], abs=1e-6)
    [short] = client.embed("toy", "One text.", dimensions=2).embeddings
    length = math.hypot(*one[:2])
    assert short == pytest.approx([value / length for value in one[:2]], abs=1e-5)
    assert client.embed("toy", "").embeddings == []
    old = client.embeddings("toy", "One text.").embedding
    assert [value / math.hypot(*old) for value in old] == pytest.approx(one, abs=1e-5)
    assert math.hypot(*old) > 1.5  # as the model has it
    assert client.embeddings("toy", "").embedding == []


def test_a_long_text_is_cut_to_the_context_if_it_may_be() -> None:
    engine = ScriptedEngine(says(TEXT))
    with listening(engine) as url, ollama.Client(host=url) as client:
        client.embed("toy", "word " * 500)
        assert len(engine.submitted[-1].tokens) == MAX_SEQ_LEN - 1
        with pytest.raises(ollama.ResponseError, match="context") as refused:
            client.embed("toy", "word " * 500, truncate=False)
    assert refused.value.status_code == 400


# ---- models
FACTS = ModelFacts(
    format="gguf",
    path="/models/toy.gguf", arch="llama", modified_s=1_700_000_000.5, file_type="Q8_0",
    n_ctx_train=2048, n_embd=64, n_params=7_600_000_000, size_bytes=8_000_000,
    template_source="{{ messages }}",
    metadata=GgufMetadata(
        {"general.license": "MIT", "llama.block_count": 5, "tokenizer.ggml.tokens": ["a", "b"]}
    ),
)  # fmt: skip


def test_models_are_listed_and_shown() -> None:
    engine = ScriptedEngine(says(TEXT))
    model = replace(served(InProcessEngineClient(engine)), facts=FACTS)
    with listening_model(model) as url, ollama.Client(host=url) as client:
        [listed] = client.list().models
        [loaded] = client.ps().models
        shown = client.show("toy")
        raw = client._client.post("/api/show", json={"name": "toy:latest", "verbose": True})
    assert listed.model == loaded.model == loaded.name == "toy:latest"
    assert listed.digest == loaded.digest and len(bytes.fromhex(listed.digest)) == 32
    assert listed.size == loaded.size == 8_000_000 and loaded.size_vram == 0
    assert listed.modified_at == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert loaded.expires_at > datetime.now(UTC) and loaded.context_length == MAX_SEQ_LEN
    details = listed.details
    assert (details.format, details.family, details.families) == ("gguf", "llama", ["llama"])
    assert (details.parameter_size, details.quantization_level) == ("7.6B", "Q8_0")
    assert shown.details == details and shown.template == "{{ messages }}"
    assert shown.license == "MIT" and shown.modelfile.startswith("FROM toy.gguf\n")
    assert 'stop "<|im_end|>"' in shown.parameters
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["general.parameter_count"] == 7_600_000_000
    assert shown.modelinfo["llama.block_count"] == 5
    assert shown.modelinfo["llama.context_length"] == 2048
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert raw.json()["model_info"]["tokenizer.ggml.tokens"] == ["a", "b"]
    assert shown.capabilities == ["completion"]


def test_capabilities_are_those_of_the_template() -> None:
    with thinking_client() as (client, _):
        assert client.show("toy").capabilities == ["completion", "tools", "thinking"]


def test_management_is_refused_in_a_sentence(client) -> None:
    calls = [
        lambda: client.pull("llama3.2"),
        lambda: list(client.pull("llama3.2", stream=True)),
        lambda: client.push("me/toy"),
        lambda: client.create("new", from_="toy"),
        lambda: client.copy("toy", "other"),
        lambda: client.delete("toy"),
    ]
    for call in calls:
        with pytest.raises(
            ollama.ResponseError, match=r"--model|dllama (pull|rm|convert)"
        ) as refused:
            call()
        assert refused.value.status_code == 501


def test_errors_are_ollamas(client, url: str) -> None:
    with pytest.raises(ollama.ResponseError, match="`messages`") as refused:
        client._request(ollama.ChatResponse, "POST", "/api/chat", json={"messages": 5})
    assert refused.value.status_code == 400
    with (
        ollama.Client(host=url) as stranger,
        pytest.raises(ollama.ResponseError, match="API key") as refused,
    ):
        stranger.list()
    assert refused.value.status_code == 401
    with pytest.raises(ollama.ResponseError, match="no route") as refused:
        client._request(ollama.ChatResponse, "POST", "/api/nothing", json={})
    assert refused.value.status_code == 404


def test_an_error_after_the_stream_began_is_a_line() -> None:
    engine = ScriptedEngine(says("word " * 200, ends=False))
    with listening(engine, client=ImpatientClient) as url, ollama.Client(host=url) as client:
        with pytest.raises(ollama.ResponseError) as broken:
            for n, _ in enumerate(client.generate("toy", "Hi", stream=True, options={})):
                if n == 3:
                    engine.runner.loses_node = True
        assert "node" in broken.value.error


def test_what_clients_look_for_at_the_root(url: str, client) -> None:
    http = client._client
    assert "Ollama is running" in http.get("/").text
    plain = http.get("/", headers={"Accept": "text/plain, */*"})
    assert plain.text == "Ollama is running"
    assert http.head("/").status_code == 200 and http.head("/api/tags").status_code == 200
    assert "/api/chat" in str(http.get("/").json()["routes"])
    version = http.get("/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 12, 11)
