"""Training: the model that PyTorch trains is the one that dllama computes; interruptions leave no
trace. Needs the `train` extra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch comes with the `train` extra")

from dllama.config import ModelConfig  # noqa: E402
from dllama.formats import open_model  # noqa: E402
from dllama.qtypes import QType  # noqa: E402
from examples.demo_model import model as model_module  # noqa: E402
from examples.demo_model import train as train_module  # noqa: E402
from examples.demo_model.batches import (  # noqa: E402
    NO_TOPIC,
    OPENING_TOKENS,
    ROUND,
    Corpus,
    answer_weights,
    encode_corpus,
    make_batch,
    plan_batches,
)
from examples.demo_model.data.conversations import Writer  # noqa: E402
from examples.demo_model.data.dialogue import segments  # noqa: E402
from examples.demo_model.export import export_gguf  # noqa: E402
from examples.demo_model.model import Model, demo_config, tensors  # noqa: E402
from examples.demo_model.tokenizer import tokenizer_metadata, train_tokenizer  # noqa: E402
from examples.demo_model.topics import (  # noqa: E402
    TopicHead,
    TopicSettings,
    embeddings_of_topics,
    question_runs,
)
from examples.demo_model.train import (  # noqa: E402
    Settings,
    Training,
    averaged,
    held_out_corpus,
    learning_rate,
    measure,
)
from tests.references.forward import reference_logits  # noqa: E402

SMALL = ModelConfig(
    arch="llama", name="small", dim=64, hidden_dim=96, n_layers=2, n_heads=4, n_kv_heads=2,
    head_dim=16, vocab_size=600, max_seq_len=2048, norm_epsilon=1e-5, rope_theta=10000.0,
    is_tied=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    texts = (s.text for d in Writer(13).documents(400) for s in segments(d))
    return train_tokenizer(texts, vocab_size=SMALL.vocab_size)


@pytest.fixture(scope="module")
def corpus(tokenizer):  # type: ignore[no-untyped-def]
    writer = Writer(14)
    return encode_corpus(tokenizer, writer.documents(300), SMALL.max_seq_len, writer.topics)


def _make(config: ModelConfig) -> Model:
    torch.manual_seed(0)
    model = Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def test_dllama_computes_the_model_that_was_trained(tokenizer, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config = replace(SMALL, vocab_size=tokenizer.get_vocab_size())
    model = _make(config)
    arrays = {name: tensor.numpy() for name, tensor in tensors(model).items()}
    export_gguf(tmp_path / "m.gguf", config, arrays, tokenizer_metadata(tokenizer), QType.F32)
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 40)
    with torch.no_grad():
        ours = model.logits(model(torch.from_numpy(ids)[None])[0])[0].numpy()
    source = open_model(tmp_path / "m.gguf")
    expected = reference_logits(source, ids.tolist())
    source.close()
    np.testing.assert_allclose(ours, expected, atol=2e-4 * np.abs(expected).max())


def test_short_and_long_attention_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _make(SMALL)
    tokens = torch.randint(0, SMALL.vocab_size, (2, 100))
    with torch.no_grad():
        short, _ = model(tokens)
        monkeypatch.setattr(model_module, "SHORT", 10)
        long, _ = model(tokens)
    assert torch.allclose(short, long, atol=1e-4)


def test_batches_hold_every_document_once(corpus) -> None:  # type: ignore[no-untyped-def]
    batches = plan_batches(corpus, 1024, seed=3)
    assert sorted(np.concatenate(batches).tolist()) == list(range(corpus.n_documents))
    for documents in batches:
        batch = make_batch(corpus, documents, question_share=0.0, opening=3.0, seed=0)
        assert batch.tokens.numel() <= 1024 or len(documents) == 1
        counts = batch.weights > 0
        assert len(batch.at) % ROUND == 0
        assert batch.wanted[counts].tolist() == [
            int(corpus.ids[i])
            for d in documents
            for i in range(corpus.starts[d] + 1, corpus.starts[d + 1])
            if corpus.is_answer[i]
        ]
        flat = batch.tokens.flatten()
        follows = batch.at[counts] + 1
        same_row = follows % batch.tokens.shape[1] != 0
        assert torch.equal(flat[follows[same_row]], batch.wanted[counts][same_row])


def test_questions_count_in_part(corpus) -> None:  # type: ignore[no-untyped-def]
    [documents, *_] = plan_batches(corpus, 4096, seed=3)
    none, some, every = (
        float(make_batch(corpus, documents, question_share=s, opening=1.0, seed=1).weights.sum())
        for s in (0.0, 0.5, 1.0)
    )
    assert none < some < every


def test_the_opening_of_every_answer_weighs_more() -> None:
    n = OPENING_TOKENS
    is_answer = np.array([False] * 3 + [True] * (n + 2) + [False] + [True] * 2)
    weights = answer_weights(is_answer, 3.0)[is_answer]
    assert weights.tolist() == [3.0] * n + [1.0] * 2 + [3.0] * 2


def test_an_interrupted_training_ends_where_a_whole_one_does(
    corpus,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train_module, "demo_config", lambda size: replace(SMALL, vocab_size=size))
    settings = Settings(n_documents=200, n_refine=100, micro_tokens=1024)
    whole = Training(settings, corpus, SMALL.vocab_size, tmp_path / "whole")
    losses = [whole.train_step()[0] for _ in range(8)]
    assert losses[-1] < losses[0]

    (tmp_path / "cut").mkdir()
    first = Training(settings, corpus, SMALL.vocab_size, tmp_path / "cut")
    for _ in range(4):
        first.train_step()
    first.save()
    second = Training(settings, corpus, SMALL.vocab_size, tmp_path / "cut")
    assert second.resume() and second.step == 4
    for _ in range(4):
        second.train_step()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)

    other = Training(replace(settings, seed=2), corpus, SMALL.vocab_size, tmp_path / "cut")
    assert not other.resume()


def test_held_out_questions_are_measured(tokenizer) -> None:  # type: ignore[no-untyped-def]
    model = _make(replace(SMALL, vocab_size=tokenizer.get_vocab_size()))
    held_out = held_out_corpus(tokenizer, 2048)
    torch.manual_seed(0)
    found = measure(model, TopicHead(SMALL.dim, held_out.n_topics), held_out)
    assert found.loss > 1.0 and 0.0 <= found.word_for_word < 0.5 and 0.0 <= found.named < 0.2


def test_topics_are_asked_for_up_to_the_answer(tokenizer, corpus) -> None:  # type: ignore[no-untyped-def]
    begins, ends = question_runs(corpus)
    assert len(begins) > 300
    for begin, end in zip(begins, ends, strict=True):
        if end in corpus.starts:  # cut by the length of the context
            continue
        asked = tokenizer.decode(corpus.ids[begin:end].tolist(), skip_special_tokens=False)
        assert asked.startswith("<|im_start|>user\n")
        assert asked.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert not corpus.is_answer[begin:end].any() and corpus.is_answer[end]
        assert len(set(corpus.topics[begin:end].tolist())) == 1


def test_bags_of_tokens_learn_topics() -> None:
    rng = np.random.default_rng(0)
    topics = rng.integers(0, 5, 600)
    # A question of four tokens, one of which belongs to its topic, then one of an answer.
    ids = rng.integers(20, 60, (600, 5)).astype(np.uint16)
    ids[:, 1] = topics
    named = np.repeat(topics[:, None], 5, axis=1).astype(np.int16)
    named[:, 4] = NO_TOPIC
    is_answer = np.tile([False] * 4 + [True], 600)
    corpus = Corpus(ids.ravel(), is_answer, named.ravel(), np.arange(0, 3001, 5), 5)
    settings = TopicSettings(passes=40)
    weight = embeddings_of_topics(corpus, 60, 16, settings, seed=1)
    assert weight.shape == (60, 16)
    telling, others = weight[:5].norm(dim=1), weight[20:].norm(dim=1)
    assert telling.min() > 1.5 * others.max()


def test_the_weights_of_both_ends_are_averaged(
    corpus,  # type: ignore[no-untyped-def]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(train_module, "demo_config", lambda size: replace(SMALL, vocab_size=size))
    settings = Settings(n_documents=200, n_refine=100, micro_tokens=4096, micros=1)
    training = Training(settings, corpus, SMALL.vocab_size, tmp_path)
    while training.step < training.n_first:
        training.train_step()
    first = training.model.norm.weight.clone()
    while training.step < training.n_steps:
        training.train_step()
    training.save()
    again = Training(settings, corpus, SMALL.vocab_size, tmp_path)
    assert again.resume()
    for each in (training, again):
        last = each.model.norm.weight
        assert not torch.equal(first, last)
        assert torch.equal(averaged(each).norm.weight, (first + last) / 2)


def test_the_learning_rate_falls_twice() -> None:
    settings = Settings()
    rates = [learning_rate(settings, step, 1000, 1500) for step in range(1500)]
    assert max(rates[:1000]) == settings.learning_rate and max(rates[1000:]) == settings.refine_rate
    for first, end in ((0, 1000), (1000, 1500)):
        part = rates[first:end]
        top = part.index(max(part))
        assert part[: top + 1] == sorted(part[: top + 1])
        assert part[top:] == sorted(part[top:], reverse=True)
        assert part[-1] < 0.05 * part[top]


def test_what_refines_comes_last(corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = Settings(n_documents=200, n_refine=100, micro_tokens=1024, micros=1)
    training = Training(settings, corpus, SMALL.vocab_size, tmp_path)
    assert training.n_steps == len(training.batches) > training.n_first > 0
    first, last = training.batches[: training.n_first], training.batches[training.n_first :]
    assert sorted(np.concatenate(first).tolist()) == list(range(200))
    assert sorted(np.concatenate(last).tolist()) == list(range(200, 300))


def test_naming_the_topic_counts_only_where_it_is_asked(corpus) -> None:  # type: ignore[no-untyped-def]
    [documents, *_] = plan_batches(corpus, 2048, seed=4)
    batch = make_batch(corpus, documents, question_share=0.0, opening=1.0, seed=1)
    n_asked = sum(
        int((corpus.topics[corpus.starts[d] : corpus.starts[d + 1]] != NO_TOPIC).sum())
        for d in documents
    )
    assert int((batch.topics != NO_TOPIC).sum()) == n_asked > 0
    torch.manual_seed(0)
    head = TopicHead(8, corpus.n_topics)
    states = torch.randn(*batch.tokens.shape, 8)
    whole = head.loss(states, batch, TopicSettings())
    states.flatten(0, 1)[batch.asked_at[batch.topics != NO_TOPIC]] = 0.0
    assert whole != head.loss(states, batch, TopicSettings())
    others = torch.ones(batch.tokens.numel(), dtype=torch.bool)
    others[batch.asked_at] = False
    same = head.loss(states, batch, TopicSettings())
    states.flatten(0, 1)[others] = 7.0
    assert torch.equal(same, head.loss(states, batch, TopicSettings()))


def test_the_demo_shards_over_four_nodes_and_more() -> None:
    config = demo_config(4096)
    assert config.dim == 256 and config.n_kv_heads >= 4 and config.max_seq_len == 2048
    assert config.hidden_dim % (32 * 4) == 0
