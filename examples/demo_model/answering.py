"""The model in dllama's own engine, in this process: conversations in, greedy answers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dllama.chat import find_template, template_stop_ids
from dllama.cli.build import build_engine
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.requests import FinishReason, SamplingParams, Submit

Messages = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    n_tokens: int
    is_complete: bool  # it ended by itself


class Answerer:
    """Answers conversations, many at once. Use as a context manager."""

    def __init__(self, model: Path, threads: int) -> None:
        self._tokenizer = load_tokenizer(str(model), None)
        self._template = find_template(metadata_of(str(model), None), tokenizer=self._tokenizer)
        ends = self._tokenizer.eog_ids | template_stop_ids(self._template, self._tokenizer)
        self._stop_ids = sorted(ends)
        settings = EngineSettings(model=str(model), threads=threads)
        self._engine = build_engine(settings, lambda share, detail: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._engine.close()

    def answer(
        self,
        conversations: Sequence[Messages],
        max_tokens: int,
        on_done: Callable[[int], None] = lambda n: None,
    ) -> list[Answer]:
        """Returns the greedy answers, in order; `on_done` is called with the number of finished
        ones."""
        tokens: dict[str, list[int]] = {}
        ends: dict[str, FinishReason] = {}
        for i, messages in enumerate(conversations):
            prompt = self._tokenizer.encode(self._template.render(messages), parse_special=True)
            tokens[str(i)] = []
            self._engine.submit(
                Submit(
                    id=str(i),
                    tokens=prompt,
                    sampling=SamplingParams(temperature=0.0),
                    stop_ids=self._stop_ids,
                    max_tokens=max_tokens,
                )
            )
        while self._engine.has_work():
            for output in self._engine.step():
                tokens[output.id] += output.tokens
                if output.finish is not None:
                    ends[output.id] = output.finish
                    on_done(len(ends))
        decode = self._tokenizer.decode
        return [
            Answer(decode(ids, skip_special=True), len(ids), ends[key] is FinishReason.STOP)
            for key, ids in tokens.items()
        ]
