"""What the engine is told: prompts as tokens, seeds, sampling."""

from __future__ import annotations

from api.config import AnswerDefaults
from api.engines.in_process import InProcessEngineClient
from dllama.requests import SamplingParams
from tests.api.serving import (
    ask,
    run,
    says,
    served,
    serving,
    serving_engine,
    tokenizer,
)
from tests.scripted_runner import ScriptedEngine


def test_sampling_fields_reach_the_engine_and_others_keep_the_servers_default() -> None:
    engine = ScriptedEngine(says("a"))
    fields = {
        "temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.2, "repeat_penalty": 1.2,
        "presence_penalty": -1, "frequency_penalty": 0.25, "repeat_last_n": -1, "seed": 42,
        "logit_bias": {"65": -100, "66": 1.5},
    }  # fmt: skip
    ask(engine, lambda server: server.complete(**fields))
    assert engine.submitted[0].sampling == SamplingParams(
        0.0, 0, 0.5, 0.2, 1.2, -1.0, 0.25, -1, {65: -100.0, 66: 1.5}, 42
    )
    own = SamplingParams(temperature=0.1, top_k=3)
    defaults = AnswerDefaults(sampling=own)
    ask(engine, lambda s: s.complete(seed=1, top_p=0.7, top_k=None), defaults=defaults)
    assert engine.submitted[1].sampling == SamplingParams(0.1, 3, 0.7, seed=1)


def test_llama_servers_form_of_logit_bias() -> None:
    engine = ScriptedEngine(says("a"))
    bias = [[65, False], ["ö", 2], [66, -1]]
    ask(engine, lambda server: server.complete(logit_bias=bias))
    ids = dict.fromkeys(tokenizer().encode("ö"), 2.0)
    assert engine.submitted[0].sampling.logit_bias == {65: float("-inf"), **ids, 66: -1.0}


def test_seeds_are_random_unless_given() -> None:
    engine = ScriptedEngine(says("a"))

    async def body() -> None:
        async with serving_engine(engine) as server:
            for seed in (None, -1, None, 7):
                await server.complete(seed=seed)

    run(body)
    seeds = [submit.sampling.seed for submit in engine.submitted]
    assert len(set(seeds[:3])) == 3
    assert seeds[3] == 7


def test_prompts_as_texts_and_as_ids() -> None:
    bos = tokenizer().bos_id
    cases = {
        "abc": [[bos, *tokenizer().encode("abc")]],
        "<|begin_of_text|>abc": [[bos, *tokenizer().encode("abc")]],
    }
    for prompt, wanted in cases.items():
        engine = ScriptedEngine(says("a"))
        ask(engine, lambda server, prompt=prompt: server.complete(prompt))
        assert [s.tokens for s in engine.submitted] == wanted
    engine = ScriptedEngine(lambda submit: submit.tokens[-1:])
    reply = ask(engine, lambda server: server.complete([[1, 70], [2, 71], "ab"], n=2, max_tokens=1))
    assert [s.tokens for s in engine.submitted[::2]][:2] == [[1, 70], [2, 71]]
    assert [c["text"] for c in reply.json["choices"]][:4] == [
        tokenizer().decode([k]) for k in (70, 70, 71, 71)
    ]
    engine = ScriptedEngine(says("a"))
    ask(engine, lambda server: server.complete([5, 6, 7]))
    assert engine.submitted[0].tokens == [5, 6, 7]


def test_a_last_assistant_message_is_gone_on_with() -> None:
    engine = ScriptedEngine(says("a"))
    begun = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "The answer"}]
    opened = "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nThe answer"
    closed = opened + "<|im_end|>\n"

    async def body() -> None:
        async with serving_engine(engine) as server:
            await server.chat(messages=begun)
            await server.chat(messages=begun, continue_final_message=True)
            await server.chat(messages=begun, continue_final_message=False)
            await server.chat(messages=begun, add_generation_prompt=False)
            parts = [{"type": "text", "text": "The"}, {"type": "text", "text": "answer"}]
            await server.chat(messages=[begun[0], {"role": "assistant", "content": parts}])

    run(body)
    wanted = [opened, opened, closed + "<|im_start|>assistant\n", closed]
    wanted.append(opened.replace("The answer", "The\n\nanswer"))
    assert [submit.tokens for submit in engine.submitted] == [
        tokenizer().encode(text, add_special=True, parse_special=True) for text in wanted
    ]


def test_long_text_is_made_in_a_thread_and_gives_the_same_ids() -> None:
    engine = ScriptedEngine(says("a"), max_len=10**6)
    text = "word and ☕ " * 2000

    async def body() -> None:
        model = served(InProcessEngineClient(engine))
        roomy = type(model)(
            **{f: getattr(model, f) for f in model.__slots__} | {"max_seq_len": 10**6}
        )
        async with serving(roomy) as server:
            await server.complete(text)
            await server.chat(messages=[{"role": "user", "content": text}])

    run(body)
    assert engine.submitted[0].tokens == [tokenizer().bos_id, *tokenizer().encode(text)]
    assert tokenizer().decode(engine.submitted[1].tokens).count("☕") == 2000
