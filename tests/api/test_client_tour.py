"""A tour of one real server by the official clients of OpenAI, Anthropic and Ollama: `dllama-root`
as a process, with the model that comes with dllama."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.programs import root

openai = pytest.importorskip("openai", reason="the official client is a test extra")
anthropic = pytest.importorskip("anthropic", reason="the official client is a test extra")
ollama = pytest.importorskip("ollama", reason="the official client is a test extra")

KEY = "tour-key"
NAME = "dllama-demo.q8_0"
QUESTION = "What is dllama?"
ANSWER = json.loads((Path(__file__).parents[1] / "golden_answers.json").read_text())[QUESTION]
ASKED = [{"role": "user", "content": QUESTION}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tour")
    with root(folder, DEFAULT_MODEL, "--api-key", KEY) as server:
        yield server.url


@pytest.fixture(scope="module")
def clients(url: str) -> Iterator[SimpleNamespace]:
    with (
        openai.OpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as of_openai,
        anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as of_anthropic,
        ollama.Client(host=url, headers={"Authorization": f"Bearer {KEY}"}) as of_ollama,
    ):
        yield SimpleNamespace(openai=of_openai, anthropic=of_anthropic, ollama=of_ollama)


def check_arguments(arguments: object) -> None:
    assert isinstance(arguments, dict) and set(arguments) == {"city", "days"}
    assert isinstance(arguments["city"], str) and arguments["days"] in (1, 2)


# ---- the same answer by every way
def test_whole_answers(clients) -> None:
    chat = clients.openai.chat.completions.create(model=NAME, messages=ASKED, temperature=0)
    assert chat.choices[0].message.content == ANSWER
    response = clients.openai.responses.create(model=NAME, input=QUESTION, temperature=0)
    assert response.output_text == ANSWER
    message = clients.anthropic.messages.create(
        model=NAME, max_tokens=300, messages=ASKED, extra_body={"temperature": 0}
    )
    assert [block.text for block in message.content] == [ANSWER]
    said = clients.ollama.chat(NAME, ASKED, options={"temperature": 0})
    assert said.message.content == ANSWER
    generated = clients.ollama.generate(NAME, QUESTION, options={"temperature": 0})
    assert generated.response == ANSWER
    counts = {
        chat.usage.completion_tokens, response.usage.output_tokens, message.usage.output_tokens,
        said.eval_count, generated.eval_count,
    }  # fmt: skip
    assert len(counts) == 1
    assert chat.choices[0].finish_reason == "stop" and message.stop_reason == "end_turn"
    assert said.done_reason == generated.done_reason == "stop"


def test_streamed_answers(clients) -> None:
    stream = clients.openai.chat.completions.create(
        model=NAME, messages=ASKED, temperature=0, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == ANSWER and chunks[-1].usage.completion_tokens > 0
    with clients.openai.responses.stream(model=NAME, input=QUESTION, temperature=0) as events:
        assert events.get_final_response().output_text == ANSWER
    with clients.anthropic.messages.stream(
        model=NAME, max_tokens=300, messages=ASKED, extra_body={"temperature": 0}
    ) as events:
        assert events.get_final_text() == ANSWER
    *parts, last = clients.ollama.chat(NAME, ASKED, options={"temperature": 0}, stream=True)
    assert "".join(part.message.content for part in parts) == ANSWER and last.done


def test_texts(clients) -> None:
    text = clients.openai.completions.create(
        model=NAME, prompt="Once upon a time", max_tokens=12, temperature=0
    )
    raw = clients.ollama.generate(
        NAME, "Once upon a time", raw=True, options={"num_predict": 12, "temperature": 0}
    )
    assert text.choices[0].text == raw.response != ""
    assert (text.choices[0].finish_reason, raw.done_reason) == ("length", "length")


def test_a_conversation_goes_on(clients) -> None:
    first = clients.openai.responses.create(model=NAME, input="Hello", temperature=0)
    more = clients.openai.responses.create(
        model=NAME, input=QUESTION, previous_response_id=first.id, temperature=0
    )
    turns = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.output_text},
        *ASKED,
    ]
    chat = clients.openai.chat.completions.create(model=NAME, messages=turns, temperature=0)
    begun = clients.ollama.generate(NAME, "Hello", options={"temperature": 0})
    gone_on = clients.ollama.generate(
        NAME, QUESTION, context=begun.context, options={"temperature": 0}
    )
    assert begun.response == first.output_text
    assert more.output_text == chat.choices[0].message.content == gone_on.response
    assert chat.usage.prompt_tokens == gone_on.prompt_eval_count == more.usage.input_tokens


# ---- tools and forms
def test_tools(clients) -> None:
    chat = clients.openai.chat.completions.create(
        model=NAME, messages=ASKED, tools=[{"type": "function", "function": FUNCTION}],
        tool_choice="required", parallel_tool_calls=False, max_tokens=200, temperature=0,
    )  # fmt: skip
    call = chat.choices[0].message.tool_calls[0]
    assert (chat.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")
    check_arguments(json.loads(call.function.arguments))
    told = clients.openai.chat.completions.create(
        model=NAME, messages=[
            *ASKED, chat.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ], max_tokens=5,
    )  # fmt: skip
    assert told.usage.prompt_tokens > chat.usage.prompt_tokens // 4
    message = clients.anthropic.messages.create(
        model=NAME, max_tokens=200, messages=ASKED, tool_choice={"type": "tool", "name": "weather"},
        extra_body={"temperature": 0},
        tools=[{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}],
    )  # fmt: skip
    assert message.stop_reason == "tool_use"
    check_arguments(message.content[-1].input)
    tool = {"type": "function", "function": FUNCTION}
    said = clients.ollama.chat(NAME, ASKED, tools=[tool], options={"temperature": 0})
    for made in said.message.tool_calls or []:
        check_arguments(made.function.arguments)
    results = [
        {"role": "assistant", "tool_calls": [
            {"function": {"name": "weather", "arguments": {"city": "Bern", "days": 1}}}]},
        {"role": "tool", "tool_name": "weather", "content": "sunny"},
    ]  # fmt: skip
    assert clients.ollama.chat(NAME, [*ASKED, *results], tools=[tool]).done


def test_structured_answers(clients) -> None:
    form = {"name": "weather", "schema": SCHEMA, "strict": True}
    chat = clients.openai.chat.completions.create(
        model=NAME, messages=ASKED, max_tokens=200, temperature=0,
        response_format={"type": "json_schema", "json_schema": form},
    )  # fmt: skip
    check_arguments(json.loads(chat.choices[0].message.content))
    response = clients.openai.responses.create(
        model=NAME, input=QUESTION, max_output_tokens=200, temperature=0,
        text={"format": {"type": "json_schema", **form}},
    )  # fmt: skip
    check_arguments(json.loads(response.output_text))
    message = clients.anthropic.messages.create(
        model=NAME, max_tokens=200, messages=ASKED,
        extra_body={"temperature": 0},
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )  # fmt: skip
    check_arguments(json.loads(message.content[0].text))
    greedy = {"num_predict": 200, "temperature": 0}
    said = clients.ollama.chat(NAME, ASKED, format=SCHEMA, options=greedy)
    check_arguments(json.loads(said.message.content))
    said = clients.ollama.generate(NAME, QUESTION, format="json", options=greedy)
    assert isinstance(json.loads(said.response), dict)


# ---- vectors, models, counts
def test_embeddings(clients) -> None:
    texts = ["A red ball.", "The weather."]
    data = clients.openai.embeddings.create(model=NAME, input=texts).data
    vectors = clients.ollama.embed(NAME, texts).embeddings
    for entry, vector in zip(data, vectors, strict=True):
        assert vector == pytest.approx(entry.embedding, abs=1e-6) and len(vector) == 256
    old = clients.ollama.embeddings(NAME, texts[0]).embedding
    length = sum(value * value for value in old) ** 0.5
    assert [value / length for value in old] == pytest.approx(vectors[0], abs=1e-5)


def test_models(clients) -> None:
    [model] = clients.openai.models.list().data
    assert model.id == NAME and clients.openai.models.retrieve(NAME).id == NAME
    [listed] = clients.ollama.list().models
    [running] = clients.ollama.ps().models
    shown = clients.ollama.show(listed.model)
    assert listed.model == running.name == f"{NAME}:latest"
    assert listed.digest == running.digest and listed.size < DEFAULT_MODEL.stat().st_size
    assert abs(listed.modified_at.timestamp() - DEFAULT_MODEL.stat().st_mtime) < 1
    details = shown.details
    assert (details.format, details.quantization_level) == ("gguf", "Q8_0")
    assert details.family == shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{details.family}.context_length"] == running.context_length == 2048
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert shown.template and "completion" in shown.capabilities


def test_counts(clients) -> None:
    n_tokens = clients.anthropic.messages.count_tokens(model=NAME, messages=ASKED).input_tokens
    counted = clients.openai.responses.input_tokens.count(model=NAME, input=QUESTION)
    said = clients.ollama.chat(NAME, ASKED, options={"num_predict": 1})
    assert n_tokens == counted.input_tokens == said.prompt_eval_count


# ---- what goes wrong
def test_errors_are_the_clients_own(clients) -> None:
    long = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError) as told:
        clients.openai.chat.completions.create(model=NAME, messages=long)
    assert "context" in told.value.message and told.value.type == "exceed_context_size_error"
    with pytest.raises(anthropic.BadRequestError, match="context"):
        clients.anthropic.messages.create(model=NAME, max_tokens=9, messages=long)
    with pytest.raises(ollama.ResponseError, match="context") as refused:
        clients.ollama.chat(NAME, long)
    assert refused.value.status_code == 400
    with pytest.raises(openai.BadRequestError) as told:
        clients.openai.chat.completions.create(model=NAME, messages=ASKED, temperature="hot")
    assert told.value.param == "temperature"
    with pytest.raises(ollama.ResponseError, match=r"`options.temperature`"):
        clients.ollama.chat(NAME, ASKED, options={"temperature": "hot"})
    with pytest.raises(openai.NotFoundError):
        clients.openai.get("/nothing", cast_to=object)
    with pytest.raises(openai.InternalServerError, match="501"):
        clients.openai.moderations.create(input="text")
    with pytest.raises(ollama.ResponseError, match="The hub cannot be asked") as refused:
        clients.ollama.pull("llama3.2")
    assert refused.value.status_code == 502


def test_a_wrong_key_is_the_clients_own_error(url: str) -> None:
    with (
        openai.OpenAI(base_url=url + "/v1", api_key="no") as client,
        pytest.raises(openai.AuthenticationError, match="API key"),
    ):
        client.models.retrieve(NAME)
    with (
        anthropic.Anthropic(base_url=url, api_key="no") as client,
        pytest.raises(anthropic.AuthenticationError, match="API key"),
    ):
        client.messages.count_tokens(model=NAME, messages=ASKED)
    with ollama.Client(host=url) as client, pytest.raises(ollama.ResponseError, match="API key"):
        client.show(NAME)


# ---- clients that leave
def n_open(clients: SimpleNamespace) -> int:
    figures = clients.ollama._client.get("/stats").json()
    return figures["api"]["open_requests"]


def wait_until_idle(clients: SimpleNamespace) -> None:
    until_s = time.monotonic() + 20
    while n_open(clients):
        assert time.monotonic() < until_s, "an answer goes on although its client has left"
        time.sleep(0.02)


def test_a_client_that_leaves_ends_its_answer(clients) -> None:
    endless = {"ignore_eos": True}
    stream = clients.openai.chat.completions.create(
        model=NAME, messages=ASKED, stream=True, extra_body=endless
    )
    next(stream)
    stream.close()
    wait_until_idle(clients)
    with clients.anthropic.messages.stream(
        model=NAME, max_tokens=1900, messages=ASKED, extra_body=endless
    ) as events:
        next(iter(events))
    wait_until_idle(clients)
    parts = clients.ollama.chat(NAME, ASKED, stream=True, options=endless)
    next(parts)
    parts.close()
    wait_until_idle(clients)


def test_an_answer_goes_on_where_its_conversation_is_named(clients) -> None:
    headers = {"X-Conversation-Id": "tour"}
    stream = clients.openai.chat.completions.create(
        model=NAME, messages=ASKED, temperature=0, stream=True, extra_headers=headers
    )
    next(stream)
    stream.close()
    http = clients.ollama._client
    replayed = http.get("/v1/stream", params={"conv_id": "tour"}).text
    chunks = [json.loads(line[6:]) for line in replayed.splitlines() if line.startswith("data: {")]
    pieces = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(pieces) == ANSWER and replayed.endswith("data: [DONE]\n\n")
    assert http.delete("/v1/stream", params={"conv_id": "tour"}).status_code == 204


# ---- all at once
def test_asynchronous_clients_beside_each_other(url: str) -> None:
    async def ask() -> list[str]:
        async with (
            openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY) as of_openai,
            anthropic.AsyncAnthropic(base_url=url, api_key=KEY) as of_anthropic,
            ollama.AsyncClient(host=url, headers={"Authorization": f"Bearer {KEY}"}) as of_ollama,
        ):

            async def by_openai() -> str:
                chat = await of_openai.chat.completions.create(
                    model=NAME, messages=ASKED, temperature=0
                )
                return chat.choices[0].message.content

            async def by_anthropic() -> str:
                message = await of_anthropic.messages.create(
                    model=NAME, max_tokens=300, messages=ASKED, extra_body={"temperature": 0}
                )
                return message.content[0].text

            async def by_ollama() -> str:
                stream = await of_ollama.chat(NAME, ASKED, stream=True, options={"temperature": 0})
                return "".join([part.message.content async for part in stream])

            return await asyncio.gather(by_openai(), by_anthropic(), by_ollama())

    assert asyncio.run(ask()) == [ANSWER] * 3
