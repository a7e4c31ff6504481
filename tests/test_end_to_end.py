"""The whole path with the real programs: root, workers, HTTP, a real model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from dllama.cli.flags.arguments import DEFAULT_MODEL
from tests.programs import Server, root, workers
from tests.shared_data import shared_file
from tests.toy_models import write_toy

pytestmark = pytest.mark.timeout(600)
STORY = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she "
    "saw a big, red ball. She wanted to play with it, but it was too high."
)
MODELS: dict[str, Callable[[], Path]] = {
    "stories260K": lambda: shared_file("models/stories260K.gguf"),
    "packaged": lambda: DEFAULT_MODEL,
}
CLUSTERS = {
    "two": "1,1", "three": "1,1,1", "four": "1,1,1,1", "five": "1,1,1,1,1",
    "uneven": "3,2,1", "lopsided": "1,5",
}  # fmt: skip


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with workers(tmp_path_factory.mktemp("workers"), 4) as addresses:
        yield addresses


QUESTIONS = [
    {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 60, "logprobs": 4},
    {"prompt": "The cat", "seed": 7, "temperature": 1.2, "max_tokens": 40, "logprobs": 2},
    {"prompt": "One day a bird " * 30, "seed": 1, "max_tokens": 20, "mirostat": 2, "logprobs": 0},
]


def answers(server: Server) -> list[object]:
    """Texts and log-probabilities, to the last digit that JSON shows."""
    found = []
    for question in QUESTIONS:
        status, answer = server.post("/v1/completions", question)
        assert status == 200
        found.append(answer["choices"])
    status, answer = server.post("/v1/embeddings", {"input": "a red ball"})
    return [*found, answer["data"] if status == 200 else status]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[object]]:
    """The answers of one node, by the name of the model."""

    @cache
    def ask(model: str) -> list[object]:
        with root(tmp_path_factory.mktemp("alone"), MODELS[model]()) as server:
            return answers(server)

    return ask


CASES = [("stories260K", name) for name in CLUSTERS] + [("packaged", "two"), ("packaged", "uneven")]


@pytest.mark.parametrize(("model", "cluster"), CASES, ids="-".join)
def test_answers_are_the_same_on_any_cluster(
    tmp_path: Path, daemons: list[str], alone: Callable[[str], list[object]], model: str,
    cluster: str,
) -> None:  # fmt: skip
    """Five nodes are more than the story's model has key/value heads."""
    shares = CLUSTERS[cluster]
    n_workers = shares.count(",")
    args = ["--workers", ",".join(daemons[:n_workers]), "--shares", shares]
    with root(tmp_path, MODELS[model](), *args) as server:
        assert answers(server) == alone(model)
        _, stats = server.get("/stats")
    assert stats["world_size"] == n_workers + 1
    assert [w["rank"] for w in stats["workers"]] == list(range(n_workers + 1))
    if model == "stories260K":
        assert sum(w["shard"]["kv_heads"] for w in stats["workers"]) == 4
        assert sum(w["shard"]["hidden"] for w in stats["workers"]) == 172


def test_the_story_is_the_known_one(alone: Callable[[str], list[object]]) -> None:
    assert alone("stories260K")[0][0]["text"].startswith(STORY)  # type: ignore[index]


def test_a_draft_model_beside_a_cluster(tmp_path: Path, daemons: list[str]) -> None:
    """Guesses of a model that is the large one's twin: nearly all come true, and the answer is
    that of plain decoding."""
    model = write_toy(tmp_path / "toy.gguf")
    args = ["--workers", daemons[0], "--shares=equal", "--draft-model", str(model), "--speculate=8"]
    body = {"prompt": "hello", "temperature": 0, "n_predict": 60, "ignore_eos": True}
    with root(tmp_path, model, *args) as server:
        _, plain = server.post("/completion", {**body, "speculative.n_max": 0})
        status, answer = server.post("/completion", {**body, "speculative.p_min": 0.01})
        _, stats = server.get("/stats")
    assert status == 200 and answer["content"] == plain["content"]
    found = stats["speculation"]
    assert found["accepted"] == answer["timings"]["draft_n_accepted"] > 40
    assert found["drafted"] == answer["timings"]["draft_n"] >= found["accepted"]


def test_a_root_that_is_killed_leaves_its_worker_waiting(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.gguf")
    with workers(tmp_path, 1) as [address]:
        for _ in range(2):
            with root(tmp_path, model, "--workers", address, "--shares", "equal") as server:
                assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 3})[0] == 200
                server.program.kill()
