"""Programs of others use a server of many models as they use their own: the official clients of
OpenAI and Ollama, and the requests of Open WebUI and Jan, in our own words. Two toys are there, a
third is on a hub."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tests.hub_server import HubServer, hub_server
from tests.programs import Server, server
from tests.toy_models import write_toy

openai = pytest.importorskip("openai", reason="the official client is a test extra")
ollama = pytest.importorskip("ollama", reason="the official client is a test extra")

pytestmark = pytest.mark.timeout(600)
REPO, FILE = "user/third", "third-Q8_0.gguf"
PULLED = f"hf.co/{REPO}:Q8_0"
HI = [{"role": "user", "content": "Hi"}]
FEW = {"temperature": 0, "num_predict": 6}
PATIENCE_S = 120.0
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"day": {"enum": [1, 2]}},
                       "required": ["day"], "additionalProperties": False},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    third = write_toy(tmp_path_factory.mktemp("hub") / FILE, seed=3, max_seq_len=2048)
    with hub_server() as hub:
        hub.repos[REPO] = {FILE: third.read_bytes()}
        yield hub


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory, hub: HubServer) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("clients")
    models = folder / "models"
    models.mkdir()
    for seed, name in enumerate(("first", "second")):
        write_toy(models / f"{name}.gguf", seed=seed, max_seq_len=2048)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("DLLAMA_MODELS", str(folder / "pulled"))
        with server(folder, "--models-dir", str(models), "--models-max", "2") as found:
            yield found


@pytest.fixture(scope="module")
def clients(router: Server) -> Iterator[SimpleNamespace]:
    with (
        openai.OpenAI(base_url=router.url + "/v1", api_key="none", max_retries=0) as of_openai,
        ollama.Client(host=router.url) as of_ollama,
    ):
        yield SimpleNamespace(openai=of_openai, ollama=of_ollama)


def status_of(router: Server, name: str) -> str:
    [row] = [row for row in router.get("/models")[1]["data"] if row["id"] == name]
    return row["status"]["value"]


def until(router: Server, name: str, status: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while status_of(router, name) != status:
        assert time.monotonic() < until_s, router.get("/models")
        time.sleep(0.05)


def lines(router: Server, path: str, body: object, at_most: int = 10**6) -> list[dict]:
    """The JSON of a stream's lines, as many as are wanted; then the client leaves."""
    parts = urlsplit(router.url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_S)
    found: list[dict] = []
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        while len(found) < at_most and (line := answer.readline()):
            text = line.removeprefix(b"data: ").strip()
            if text.startswith(b"{"):
                found.append(json.loads(text))
    finally:
        connection.close()
    return found


def test_openais_client(clients: SimpleNamespace, router: Server) -> None:
    client = clients.openai
    assert {"first", "second"} < {model.id for model in client.models.list()}
    assert client.models.retrieve("second").id == "second"
    texts = {}
    for name in ("first", "second"):
        asked = {"model": name, "messages": HI, "temperature": 0, "max_tokens": 6}
        whole = client.chat.completions.create(**asked)
        pieces = list(client.chat.completions.create(**asked, stream=True))
        assert whole.model == pieces[0].model == name
        texts[name] = whole.choices[0].message.content
        assert "".join(p.choices[0].delta.content or "" for p in pieces) == texts[name] != ""
        said = client.responses.create(model=name, input="Hi", temperature=0, max_output_tokens=6)
        assert (said.output_text, said.model) == (texts[name], name)
    assert texts["first"] != texts["second"]
    chat = client.chat.completions.create(
        model="first", messages=HI, tools=[WEATHER], tool_choice="required", max_tokens=200,
        parallel_tool_calls=False, temperature=0,
    )  # fmt: skip
    call = chat.choices[0].message.tool_calls[0].function
    assert call.name == "weather" and json.loads(call.arguments)["day"] in (1, 2)
    assert len(client.embeddings.create(model="second", input=["a", "b"]).data) == 2
    for ask in (client.models.retrieve, lambda name: client.responses.create(model=name, input="")):
        with pytest.raises(openai.NotFoundError, match="does not exist here"):
            ask("gpt-5")
    assert router.get("/stats")[1]["api"]["open_requests"] == 0


def test_ollamas_client(clients: SimpleNamespace, router: Server) -> None:
    """A model is pulled, found by each of its names, told about, asked, unloaded and deleted."""
    client = clients.ollama
    with pytest.raises(ollama.ResponseError, match="user/nothing"):
        client.pull("hf.co/user/nothing:Q8_0")
    told = list(client.pull(PULLED, stream=True))
    assert told[0].status == "pulling manifest" and told[-1].status == "success"
    assert any(part.total == part.completed for part in told if part.total)
    assert PULLED in [row.model for row in client.list().models]
    said = set()
    for name in (PULLED, f"{REPO}:Q8_0", REPO, f"{REPO}:latest"):
        assert "completion" in client.show(name).capabilities
        answer = client.chat(name, HI, options=FEW)
        assert (answer.model, answer.eval_count) == (PULLED, 6)
        said.add(answer.message.content)
        parts = list(client.chat(name, HI, options=FEW, stream=True))
        said.add("".join(part.message.content for part in parts))
    assert len(said) == 1
    assert client.generate(PULLED, "Hi", options=FEW).done
    assert len(client.embed(PULLED, ["a", "b"]).embeddings) == 2
    [row] = [row for row in client.ps().models if row.model == PULLED]
    assert row.size > 0 and row.expires_at is not None
    assert client.generate(PULLED, "", keep_alive=0).done_reason == "unload"
    until(router, f"{REPO}:Q8_0", "unloaded")
    assert PULLED not in [row.model for row in client.ps().models]
    assert client.delete(PULLED).status == "success"
    assert PULLED not in [row.model for row in client.list().models]
    with pytest.raises(ollama.ResponseError, match="does not exist here") as refused:
        client.show(PULLED)
    assert refused.value.status_code == 404


def test_the_requests_of_open_webui(router: Server) -> None:
    """Over its connection to Ollama: it lists, chats, stops, asks for a title and for vectors."""
    assert router.get("/api/version")[1]["version"].count(".") == 2
    rows = router.get("/api/tags")[1]["models"]
    [name] = [row["model"] for row in rows if row["name"] == "first:latest"]
    shown = router.post("/api/show", {"model": name, "name": name})[1]
    assert shown["model_info"]["general.architecture"] == "llama"
    asked = {"model": name, "messages": HI, "stream": True, "options": {}, "keep_alive": "5m"}
    parts = lines(router, "/api/chat", {**asked, "options": FEW})
    assert parts[-1]["done"] and parts[-1]["eval_count"] == 6
    lines(router, "/api/chat", {**asked, "options": {"num_predict": -1}}, at_most=3)
    until_s = time.monotonic() + PATIENCE_S
    while router.get("/stats?model=first")[1]["sequences"]["running"]:
        assert time.monotonic() < until_s, "a client that left is still answered"
        time.sleep(0.05)
    title = {**asked, "stream": False, "options": FEW, "format": "json"}
    assert router.post("/api/chat", title)[1]["done"]
    status, vectors = router.post("/api/embed", {"model": name, "input": ["a", "b"]})
    assert status == 200 and len(vectors["embeddings"]) == 2
    [row] = [row for row in router.get("/api/ps")[1]["models"] if row["name"] == name]
    assert row["expires_at"]
    assert router.post("/api/generate", {"model": name, "keep_alive": 0, "prompt": ""})[0] == 200
    until(router, "first", "unloaded")


def test_the_requests_of_jan(router: Server) -> None:
    """As of llama-server's router: it loads, waits, chats, counts and unloads."""
    router.post("/models/unload", {"model": "second"})
    until(router, "second", "unloaded")
    assert router.post("/models/load", {"model": "second"}) == (200, {"success": True})
    until(router, "second", "loaded")
    asked = {
        "model": "second", "messages": HI, "stream": True, "max_tokens": 6, "temperature": 0,
        "stream_options": {"include_usage": True}, "return_progress": True,
        "timings_per_token": True,
    }  # fmt: skip
    parts = lines(router, "/v1/chat/completions", asked)
    assert parts[-1]["usage"]["completion_tokens"] == 6 and parts[-1]["timings"]["predicted_n"] == 6
    assert any("prompt_progress" in part for part in parts)
    assert router.get("/props?model=second")[1]["default_generation_settings"]["n_ctx"] == 2048
    status, counted = router.post("/tokenize", {"model": "second", "content": "Hi"})
    assert status == 200 and counted["tokens"]
    assert router.post("/models/unload", {"model": "second"}) == (200, {"success": True})
    until(router, "second", "unloaded")
