"""Models with 8-bit keys and values: near those with half floats, and with the same invariants."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import tests
from dllama.chat import find_template, template_stop_ids
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.engine.engine import Engine
from dllama.errors import SessionFileError
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.kv import KvHeld
from dllama.kv_type import KvType
from dllama.requests import SamplingParams, Submit
from dllama.tokenizer import Tokenizer
from tests.local_model import load_whole, local_runner, make_step
from tests.toy_models import write_toy

TOKENS = list(np.random.default_rng(0).integers(0, 352, 60))
TEXT = """dllama splits a model over several computers. The root reads the file and sends each
worker its share; workers need no model and no configuration. Run `dllama-worker --port 9998` on
each machine that should help, then `dllama-root --workers 10.0.0.2,10.0.0.3`. """
QUESTIONS: dict[str, str] = json.loads(
    Path(tests.__file__).with_name("golden_answers.json").read_text()
)


def _log_softmax(rows: np.ndarray) -> np.ndarray:
    shifted = rows.astype(np.float64) - rows.max(-1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def test_logits_of_the_default_model_are_near_those_with_half_floats() -> None:
    tokenizer = Tokenizer.from_gguf_metadata(GgufFile(DEFAULT_MODEL).metadata)
    ids = tokenizer.encode(TEXT)[:64]  # rows of logits a step may ask for
    found = []
    for kind in (KvType.F32, KvType.F16, KvType.Q8_0):
        with local_runner(DEFAULT_MODEL, kv_type=kind) as runner:
            rows = runner.run(make_step([(0, ids, 0)], every_row=True))
            found.append(_log_softmax(np.array([row.logits for row in rows])))
    exact, half, quarter = found
    for rounded in (half, quarter):  # either moves activations over a border of their 8 bits
        divergence = (np.exp(exact) * (exact - rounded)).sum(-1)
        assert 0 < divergence.mean() < 2e-3  # nats a token
    assert np.corrcoef(half.ravel(), quarter.ravel())[0, 1] > 0.9995


def test_the_default_model_answers_as_it_did() -> None:
    """Letter for letter, but where two words were nearly as likely."""
    metadata = GgufFile(DEFAULT_MODEL).metadata
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    template = find_template(metadata, tokenizer=tokenizer)
    stops = sorted(tokenizer.eog_ids | template_stop_ids(template, tokenizer))
    found: dict[str, list[int]] = {question: [] for question in QUESTIONS}
    with local_runner(DEFAULT_MODEL, n_pages=128, kv_type=KvType.Q8_0) as runner:
        engine = Engine(runner, max_step_tokens=112)
        for question in QUESTIONS:
            text = template.render([{"role": "user", "content": question}])
            ids = tokenizer.encode(text, parse_special=True)
            engine.submit(Submit(question, ids, SamplingParams(temperature=0), stops, 300))
        while engine.has_work():
            for output in engine.step():
                found[output.id] += output.tokens
    answers = {q: tokenizer.decode(ids) for q, ids in found.items()}
    same = [q for q in QUESTIONS if answers[q] == QUESTIONS[q]]
    assert len(same) >= len(QUESTIONS) - 2, answers


def test_chunks_and_batches_equal_the_whole(tmp_path: Path) -> None:
    path = write_toy(tmp_path / "toy.gguf")
    with local_runner(path, threads=2, kv_type=KvType.Q8_0) as runner:
        [whole] = runner.run(make_step([(0, TOKENS, 0)]))
        for cuts in ([0, 1, 60], [0, 33, 40, 60], list(range(61))):
            for start, end in itertools.pairwise(cuts):
                chunks = [(1, TOKENS[start:end], start), (2, TOKENS[:7], 0)]
                row, _ = runner.run(make_step(chunks))
            assert np.array_equal(row.logits, whole.logits)


def test_saved_pages_come_back_and_only_as_what_they_are(tmp_path: Path) -> None:
    path, file, mark = write_toy(tmp_path / "toy.gguf"), tmp_path / "pages.kv", bytes(32)
    n_bytes = {}
    with contextlib.closing(open_model(path)) as source:
        for kind in KvType:
            model = load_whole(source, n_pages=4, kv_type=kind)
            for array in model.state.kv:
                array[:] = np.random.default_rng(1).integers(0, 255, array.shape)
            before = [array[:, [2, 0]].copy() for array in model.state.kv]
            n_bytes[kind] = model.save_kv(file, KvHeld.of([2, 0]), mark, lambda: None)
            model.load_kv(file, KvHeld.of([1, 3]), mark, lambda: None)
            after = [array[:, [1, 3]] for array in model.state.kv]
            assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
            model.close()
        other = load_whole(source, n_pages=4, kv_type=KvType.F16)
        with pytest.raises(SessionFileError, match="another --kv-type"):
            other.load_kv(file, KvHeld.of([1, 3]), mark, lambda: None)
        other.close()
    assert n_bytes[KvType.Q8_0] < 0.6 * n_bytes[KvType.F16] < 0.36 * n_bytes[KvType.F32]
