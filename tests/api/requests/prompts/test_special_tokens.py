"""Tokens around a text: BOS once, EOS after what is complete, and never before an answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from api.engines.in_process import InProcessEngineClient
from api.served_model import ServedModel
from dllama.chat.chat_template import ChatTemplate
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.special_tokens import FimTokens
from tests.api.serving import Server, run, served, serving
from tests.dllama.tokenizer.vocabularies import bpe_metadata, spm_metadata
from tests.scripted_runner import ScriptedEngine

PIECES = {"▁": -1.0, **{letter: -2.0 - i for i, letter in enumerate("Oncehi?")}}
SPECIALS = {"<s>": 3, "</s>": 3, "<P>": 3, "<S>": 3, "<M>": 3}
MESSAGES = [{"role": "user", "content": "hi"}]


def spm(**flags: bool) -> Tokenizer:
    return with_flags(spm_metadata(PIECES), flags)


def bpe(**flags: bool) -> Tokenizer:
    named = {"tokenizer.ggml.bos_token_id": 256, "tokenizer.ggml.eos_token_id": 257}
    return with_flags(bpe_metadata([], SPECIALS) | named, flags)


def with_flags(metadata: dict, flags: dict[str, bool]) -> Tokenizer:
    named = {f"tokenizer.ggml.{name}_token": value for name, value in flags.items()}
    return Tokenizer.from_gguf_metadata(metadata | named)


def model_of(tokenizer: Tokenizer, engine: ScriptedEngine, template: str = "") -> ServedModel:
    model = served(InProcessEngineClient(engine))
    return replace(
        model,
        tokenizer=tokenizer,
        stop_ids=(tokenizer.eos_id,),
        chat_template=ChatTemplate(
            template or "{% for m in messages %}{{ m.content }}{% endfor %}?",
            bos_token=tokenizer.bos_text,
            eos_token=tokenizer.eos_text,
        ),
        facts=replace(model.facts, fim=FimTokens(258, 259, 260)),
    )


def submitted(
    tokenizer: Tokenizer, *posts: tuple[str, dict], template: str = ""
) -> list[list[int]]:
    """The tokens that an engine gets of requests."""
    engine = ScriptedEngine(lambda submit: [tokenizer.eos_id])

    async def body() -> None:
        async with serving(model_of(tokenizer, engine, template)) as server:
            for path, sent in posts:
                reply = await server.post(path, sent)
                assert reply.status == 200, reply.data

    run(body)
    return [submit.tokens for submit in engine.submitted]


@pytest.mark.parametrize(("make", "bos"), list(product((spm, bpe), (True, False))))
def test_no_prompt_ends_with_eos(make: type[Tokenizer], bos: bool) -> None:
    tokenizer = make(add_eos=True, add_bos=bos)
    first = [tokenizer.bos_id] if bos else []
    once, chat = tokenizer.encode("Once"), tokenizer.encode("hi?")
    asked = {"messages": MESSAGES, "max_tokens": 1}
    infill = {"input_prefix": "O", "input_suffix": "n"}
    found = submitted(
        tokenizer,
        ("/v1/completions", {"prompt": "Once", "max_tokens": 1}),
        ("/v1/completions", {"prompt": once, "max_tokens": 1}),
        ("/completion", {"prompt": "Once", "n_predict": 1}),
        ("/completion", {"prompt": ["Once", *once], "n_predict": 1}),
        ("/v1/chat/completions", asked),
        ("/v1/messages", asked),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 1}),
        ("/infill", {**infill, "n_predict": 1}),
    )
    parts = [258, *tokenizer.encode("O"), 259, *tokenizer.encode("n"), 260]
    assert found == [
        first + once, once, first + once, first + once + once, *[first + chat] * 3, first + parts,
    ]  # fmt: skip


@pytest.mark.parametrize("make", [spm, bpe])
def test_complete_texts_keep_eos(make: type[Tokenizer]) -> None:
    tokenizer = make(add_eos=True, add_bos=True)
    whole = [tokenizer.bos_id, *tokenizer.encode("Once"), tokenizer.eos_id]
    begun = tokenizer.bos_text + "Once"
    assert submitted(
        tokenizer, ("/v1/embeddings", {"input": "Once"}), ("/v1/embeddings", {"input": begun})
    ) == [whole, whole]

    async def body() -> None:
        async with serving(model_of(tokenizer, ScriptedEngine(lambda _: []))) as server:
            assert await tokens(server, content="Once", add_special=True) == whole
            assert await tokens(server, content=begun, add_special=True) == whole
            assert await tokens(server, content="Once") == whole[1:-1]
            count = await server.post("/v1/messages/count_tokens", {"messages": MESSAGES})
            assert count.json["input_tokens"] == len(tokenizer.encode_prompt("hi?"))

    run(body)


async def tokens(server: Server, **body: object) -> list[int]:
    return (await server.post("/tokenize", body)).json["tokens"]


@pytest.mark.parametrize(("make", "bos"), list(product((spm, bpe), (True, False))))
def test_bos_of_a_template_is_not_doubled(make: type[Tokenizer], bos: bool) -> None:
    tokenizer = make(add_bos=bos)
    chat = ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1})
    template = "{{ bos_token }}{{ messages[0].content }}"
    assert submitted(tokenizer, chat, template=template) == [
        [tokenizer.bos_id, *tokenizer.encode("hi")]
    ]


def test_a_prompt_is_told_as_its_tokens_are_written() -> None:
    """SentencePiece writes a space before a text; it is one of the prompt's tokens."""
    tokenizer = spm()
    engine = ScriptedEngine(lambda submit: [tokenizer.eos_id])

    async def body() -> None:
        async with serving(model_of(tokenizer, engine)) as server:
            for prompt in ("Once", tokenizer.encode_prompt("Once")):
                reply = await server.post("/completion", {"prompt": prompt, "n_predict": 1})
                assert reply.json["prompt"] == "<s> Once"
            for ids, text in (
                (tokenizer.encode_prompt("Once"), "<s> Once"),
                (tokenizer.encode("Once"), " Once"),
                (tokenizer.encode("Once")[1:], "Once"),
                ([], ""),
            ):
                reply = await server.post("/detokenize", {"tokens": ids})
                assert reply.json == {"content": text}

    run(body)
