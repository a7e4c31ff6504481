"""A model that answers in Harmony, as gpt-oss: its template, and a vocabulary with its tokens."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from api.answers.reasoning import tags_of
from api.engines.client import EngineClient
from api.engines.in_process import InProcessEngineClient
from api.served_model import ServedModel
from api.tools.dialects import dialect_of
from api.tools.harmony import CALL, MARKS, RETURN
from benchmarks.writers.filler_vocabulary import CONTROL, SPECIALS, bpe_metadata
from dllama.chat.chat_template import ChatTemplate
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.tokenizer.tokenizer import Tokenizer
from tests.api.serving import ROOM, VOCAB_SIZE, served
from tests.scripted_runner import ScriptedEngine

TEMPLATE = """\
{%- set effort = reasoning_effort if reasoning_effort is defined else 'medium' %}
{{- '<|start|>system<|message|>Reasoning: ' + effort + '<|end|>' }}
{%- if messages[0].role == 'system' %}
{%- set instructions, rest = messages[0].content, messages[1:] %}
{%- else %}
{%- set instructions, rest = '', messages %}
{%- endif %}
{%- if instructions or tools %}
{{- '<|start|>developer<|message|>' + instructions }}
{%- for tool in tools or [] %}
{{- '\\ntype ' + tool.function.name + ' = (_: ' + tool.function.parameters | tojson + ') => any;' }}
{%- endfor %}
{{- '<|end|>' }}
{%- endif %}
{%- set ns = namespace(name='') %}
{%- for m in rest %}
{%- if m.role == 'user' %}
{{- '<|start|>user<|message|>' + m.content + '<|end|>' }}
{%- elif m.role == 'tool' %}
{{- '<|start|>functions.' + ns.name + ' to=assistant<|channel|>commentary<|message|>' }}
{{- m.content | tojson + '<|end|>' }}
{%- elif m.tool_calls %}
{%- if m.content and m.thinking %}{{ raise_exception('there is no place for both') }}{% endif %}
{%- if m.thinking or m.content %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + (m.thinking or m.content) + '<|end|>' }}
{%- endif %}
{%- set call = m.tool_calls[0].function %}
{%- set ns.name = call.name %}
{{- '<|start|>assistant to=functions.' + call.name + '<|channel|>commentary json<|message|>' }}
{{- call.arguments | tojson + '<|call|>' }}
{%- else %}
{%- if loop.last and not add_generation_prompt and m.thinking %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}
{%- endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}
"""


@cache
def harmony_tokenizer() -> Tokenizer:
    """The filler vocabulary, with Harmony's tokens in place of its last merges."""
    metadata = bpe_metadata(VOCAB_SIZE)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(merges, list) and isinstance(types, np.ndarray)
    marks = [*MARKS, CALL, RETURN]
    at = slice(-len(SPECIALS) - len(marks), -len(SPECIALS))
    tokens[at], types[at] = marks, CONTROL
    metadata["tokenizer.ggml.merges"] = merges[: -len(marks)]
    metadata["tokenizer.ggml.eos_token_id"] = tokens.index(RETURN)
    metadata["tokenizer.ggml.add_bos_token"] = False
    return Tokenizer.from_gguf_metadata(metadata)


@cache
def harmony_masks() -> GrammarMasks:
    return GrammarMasks(VocabularyBytes.of(harmony_tokenizer()), VOCAB_SIZE)


def harmony_engine(text: str) -> ScriptedEngine:
    """An engine whose model says `text`, marks and all."""
    ids = harmony_tokenizer().encode(text, parse_special=True)
    return ScriptedEngine(lambda submit: ids, constraints=harmony_masks(), max_len=ROOM)


def harmony_model(client: EngineClient | None = None, template: str = TEMPLATE) -> ServedModel:
    """A served model over an engine, one that says nothing by default."""
    client = client or InProcessEngineClient(harmony_engine(""))
    chat = ChatTemplate(template)
    return replace(
        served(client),
        tokenizer=harmony_tokenizer(),
        chat_template=chat,
        stop_ids=tuple(sorted(harmony_tokenizer().eog_ids)),
        tool_dialect=dialect_of(chat.sources),
        think_tags=tags_of(chat.source),
        knows_effort=True,
        max_seq_len=ROOM,
    )
