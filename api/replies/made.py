"""How answers are made, and a complete choice as llama-server's own routes tell it: they answer
with it, and other routes have it as `__verbose`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from api.answers.events import Message
from api.replies.event_stream import Json
from api.replies.settings import generation_settings
from api.replies.timings import timings_of
from api.requests.generation import GenerationRequest
from api.served_model import ServedModel
from dllama.requests import FinishReason, SamplingParams


@dataclass(frozen=True, slots=True)
class Made:
    """How the answers to one request are made: what was asked, the prompts, and the samplers of the
    choices that share a prompt. `n_predict` -1: as far as the context goes."""

    model: ServedModel
    wanted: GenerationRequest
    prompts: Sequence[Sequence[int]]
    samplings: Sequence[SamplingParams]
    n_predict: int
    is_chat: bool = False

    def final(self, index: int, said: Message, slot: int | None) -> Json:
        """Returns the choice `index` as llama-server's own routes tell a complete one."""
        finish = said.finish
        assert finish is not None, "the choice is complete"
        usage, n = finish.usage, len(self.samplings)
        n_known = usage.n_prompt + usage.n_completion
        is_limit = finish.reason is FinishReason.LENGTH
        word = None if is_limit else finish.stopping_word
        sampling, prompt = self.samplings[index % n], self.prompts[index // n]
        return {
            "index": index,
            "content": said.text,
            "tokens": said.tokens,
            "id_slot": -1 if slot is None else slot,
            "stop": True,
            "model": self.model.id,
            "tokens_predicted": usage.n_completion,
            "tokens_evaluated": usage.n_prompt,
            "generation_settings": generation_settings(
                self.wanted, sampling, self.n_predict, is_chat=self.is_chat
            ),
            "prompt": self.model.tokenizer.decode(prompt, is_continuation=True),
            "has_new_line": "\n" in said.text,
            "truncated": is_limit and n_known >= self.model.max_seq_len,
            "stop_type": "limit" if is_limit else "word" if word else "eos",
            "stopping_word": word or "",
            "tokens_cached": n_known - min(1, usage.n_completion),
            "timings": timings_of(usage),
        }
