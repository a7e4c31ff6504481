"""Answers of OpenAI's chat and text completions: whole and in chunks, with llama-server's `timings`
and `prompt_progress` added."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

from api.answers.events import (
    Citation,
    Event,
    Finish,
    Message,
    Part,
    Progress,
    Start,
    Text,
    Thought,
    ToolCall,
    Usage,
    WholeAnswer,
)
from api.config import ApiConfig
from api.errors import ApiError
from api.replies.event_stream import Json, data_event
from api.replies.logprobs import LogprobWriter
from api.replies.made import Made
from api.replies.timings import progress_of, timings_of
from api.requests.generation import GenerationRequest
from api.requests.prompts.conversation import assistant_message
from api.served_model import ServedModel
from dllama.requests import FinishReason


class ChatWriter:
    """`chat.completion` and its chunks."""

    name, chunk_name, text_key = "chat.completion", "chat.completion.chunk", "content"

    def __init__(
        self, answer_id: str, model: ServedModel, request: GenerationRequest, config: ApiConfig
    ) -> None:
        self.id = answer_id
        head: Json = {
            "created": int(time.time()),
            "model": model.id,
            "system_fingerprint": config.fingerprint,
        }
        self._head: Json = {"id": answer_id, "object": self.name, **head}
        self._chunk_head: Json = {"id": answer_id, "object": self.chunk_name, **head}
        self._includes_usage = request.include_usage
        if request.include_usage:
            self._chunk_head["usage"] = None
        is_post = bool(request.sampling.get("post_sampling_probs"))
        self._logprobs = LogprobWriter(request.logprobs, model.tokenizer, is_post)
        self._made: Made | None = None  # where answers tell how they were made
        self._messages: dict[int, Message] = defaultdict(Message)  # of a stream that tells it
        self._n_open = 0  # choices that are not finished
        self._last: Json = {}  # the chunk that the answer's end is told with
        # The same objects for every piece of text: what is streamed most is made but once.
        self._choice, self._text = self._text_choice()
        self._text_chunk: Json = {**self._chunk_head, "choices": [self._choice]}

    def explain(self, made: Made) -> None:
        """Adds llama-server's `__verbose` to the answer: how it was made."""
        self._made = made

    # ---- how a chat differs from a text
    def _text_choice(self) -> tuple[Json, Json]:
        """Returns the choice of a chunk of text, and the object in it that has the text."""
        delta: Json = {"content": ""}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}, delta

    def _opening(self, index: int) -> Json | None:
        """Returns the first chunk of a choice, before any text."""
        return self._chunk(index, {"delta": {"role": "assistant", "content": None}})

    def _closing(self, index: int) -> Json:
        return self._chunk(index, {"delta": {}})

    def _said(self, choice: Message) -> Json:
        return {"message": message_of(choice)}

    # ---- a stream
    def streamed(self, event: Event) -> bytes:
        if self._made is not None and not isinstance(event, Usage):
            self._messages[event.index].add(event)
        if type(event) is Text:
            self._choice["index"] = event.index
            self._text[self.text_key] = event.text
            if event.probs or event.usage is not None:
                return self._sent(event, self._choice, self._text_chunk)
            self._choice["logprobs"] = None
            return data_event(self._text_chunk)
        if isinstance(event, Start):
            self._n_open += 1
            opening = self._opening(event.index)
            return b"" if opening is None else data_event(opening)
        if isinstance(event, Progress):
            told = {**self._closing(event.index), "prompt_progress": progress_of(event)}
            if event.usage is not None:
                told["timings"] = timings_of(event.usage)
            return data_event(told)
        if isinstance(event, Finish):
            return self._finish(event)
        if isinstance(event, Usage):
            return self._end(event)
        chunk = self._chunk(event.index, {"delta": delta_of(event)})
        return self._sent(event, choice_of(chunk), chunk)

    def _chunk(self, index: int, said: Json) -> Json:
        choice = {"index": index, **said, "logprobs": None, "finish_reason": None}
        return {**self._chunk_head, "choices": [choice]}

    def _sent(self, part: Part, choice: Json, chunk: Json) -> bytes:
        choice["logprobs"] = self._logprobs.streamed(part.probs)
        if part.usage is not None:
            chunk = {**chunk, "timings": timings_of(part.usage)}
        return data_event(chunk)

    def _finish(self, event: Finish) -> bytes:
        """Returns the chunk of a finished choice; that of the last one waits for the usage."""
        self._n_open -= 1
        chunk = self._closing(event.index)
        choice = choice_of(chunk)
        choice["logprobs"] = self._logprobs.streamed(event.probs)
        choice["finish_reason"] = reason_of(event)
        if self._n_open:
            return data_event(chunk)
        self._last = chunk
        return b""

    def _end(self, usage: Usage) -> bytes:
        """Returns the last finish reason and, if asked for, the usage; the last event has the
        timings."""
        if self._made is not None:
            self._last["__verbose"] = self._made.final(0, self._messages[0], None)
        if not self._includes_usage:
            return data_event({**self._last, **end_of(usage)})
        told = {**self._chunk_head, "choices": [], "usage": usage_json(usage), **end_of(usage)}
        return data_event(self._last) + data_event(told)

    def failed(self, error: ApiError) -> bytes:
        return data_event(error.body())

    def ended(self) -> bytes:
        return b"data: [DONE]\n\n"

    # ---- a whole answer
    def whole(self, events: Sequence[Event]) -> Json:
        answer = WholeAnswer.of(events)
        choices = [
            {
                "index": index,
                **self._said(choice),
                "logprobs": self._logprobs.whole(choice.probs),
                "finish_reason": reason_of(choice.finish),
            }
            for index, choice in enumerate(answer.choices)
        ]
        usage = {"usage": usage_json(answer.usage)}
        told: Json = {**self._head, "choices": choices, **usage, **end_of(answer.usage)}
        if self._made is not None:
            told["__verbose"] = self._made.final(0, answer.choices[0], None)
        return told


class TextWriter(ChatWriter):
    """`text_completion`, whose chunks have the same name."""

    name = chunk_name = "text_completion"
    text_key = "text"

    def _text_choice(self) -> tuple[Json, Json]:
        choice: Json = {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
        return choice, choice

    def _opening(self, index: int) -> Json | None:
        return None

    def _closing(self, index: int) -> Json:
        return self._chunk(index, {"text": ""})

    def _said(self, choice: Message) -> Json:
        return {"text": choice.text}


def choice_of(chunk: Json) -> Json:
    """Returns the one choice of a chunk."""
    choices = chunk["choices"]
    assert isinstance(choices, list)
    choice: Json = choices[0]
    return choice


def delta_of(part: Part) -> Json:
    """Returns OpenAI's `delta` for a part of a message."""
    if isinstance(part, Text):
        return {"content": part.text}
    if isinstance(part, Thought):
        return {"reasoning_content": part.text}
    if isinstance(part, ToolCall):
        function = {"name": part.name, "arguments": ""}
        opened = {"index": part.call, "id": part.id, "type": "function", "function": function}
        return {"tool_calls": [opened]}
    if isinstance(part, Citation):
        return {"citations": [citation_json(part)]}
    return {"tool_calls": [{"index": part.call, "function": {"arguments": part.text}}]}


def message_of(choice: Message) -> Json:
    """Returns the assistant's message."""
    told = assistant_message(choice.text, choice.thoughts, choice.calls)
    if choice.citations:
        told["citations"] = [citation_json(citation) for citation in choice.citations]
    return {"role": told["role"], "content": told["content"], "refusal": None, **told}


def citation_json(citation: Citation) -> Json:
    """Returns a citation, which OpenAI does not have, with the numbers that the model tells."""
    sources = [
        {"tool_call": source.call, "results": list(source.results)} for source in citation.sources
    ]
    return {
        "start": citation.begin, "end": citation.end, "text": citation.text, "sources": sources
    }  # fmt: skip


def reason_of(finish: Finish | None) -> str:
    """Returns OpenAI's finish reason."""
    assert finish is not None, "the choice is complete"
    is_call = finish.has_calls and finish.reason is FinishReason.STOP
    return "tool_calls" if is_call else str(finish.reason)


def usage_json(usage: Usage) -> Json:
    return {
        "prompt_tokens": usage.n_prompt,
        "completion_tokens": usage.n_completion,
        "total_tokens": usage.n_prompt + usage.n_completion,
        "prompt_tokens_details": {"cached_tokens": usage.n_cached},
    }


def end_of(usage: Usage) -> Json:
    """Returns the fields at the end of an answer that OpenAI does not have: its times, and the
    seed of the first choice; the other choices have the seeds after it."""
    return {"timings": timings_of(usage), "seed": usage.seed}
