"""Days in the life of an engine: who comes when, asks what and leaves early, and what all of them
have to hear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from dllama.engine.engine import Engine
from dllama.requests import Output, SamplingParams, Submit
from tests.dllama.engine.history_runner import Answer, HistoryRunner, expected_answer


class Heard:
    """All that an engine said, by sequence."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[Output]] = {}

    def add(self, outputs: list[Output]) -> None:
        for output in outputs:
            told = self.outputs.setdefault(output.id, [])
            assert not told or told[-1].finish is None, f"{output.id} goes on after its end"
            assert output.tokens or output.finish is not None
            told.append(output)

    def answer(self, name: str) -> Answer:
        outputs = self.outputs.get(name, [])
        tokens = [token for output in outputs for token in output.tokens]
        return Answer(tokens, outputs[-1].finish if outputs else None)


def drain(engine: Engine, heard: Heard | None = None, max_steps: int = 5000) -> Heard:
    heard = heard or Heard()
    for _ in range(max_steps):
        if not engine.has_work():
            return heard
        heard.add(engine.step())
    raise AssertionError(f"the engine still has work after {max_steps} steps")


def prompt(n: int, first: int = 1) -> list[int]:
    return [(first + 7 * i) % 97 for i in range(n)]


def expected(submit: Submit, runner: HistoryRunner) -> Answer:
    return expected_answer(submit, runner.config, runner.n_pages)


@dataclass(frozen=True)
class Visit:
    """A request of the random day: when it comes, and when its client leaves."""

    submit: Submit
    comes_at: int
    leaves_at: int | None


ALIKE = st.sampled_from([3, 3, 3, 50])  # where prompts begin


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    made = []
    for i in range(draw(st.integers(1, 8))):
        params = SamplingParams(
            temperature=draw(st.sampled_from([0.0, 1.0])),
            top_k=draw(st.sampled_from([0, 5, 300])),
            repeat_penalty=draw(st.sampled_from([1.0, 1.0, 1.3])),
            repeat_last_n=draw(st.sampled_from([4, -1])),
            seed=draw(st.integers(0, 9)),
        )
        shifts = draw(st.booleans())
        submit = Submit(
            f"v{i}",
            prompt(draw(st.integers(1, 300 if shifts else 127)), draw(ALIKE)),
            params,
            stop_ids=draw(st.lists(st.integers(0, 96), max_size=2)),
            max_tokens=draw(st.one_of(st.integers(1, 60), st.none(), st.integers(200, 500))),
            cache_prompt=draw(st.sampled_from([True, True, False])),
            session_id=draw(st.sampled_from([None, None, "s", "t"])),
            context_shift=shifts,
            n_keep=draw(st.sampled_from([-1, 0, 5, 40, 64, 1000])),
        )
        leaves = draw(st.one_of(st.none(), st.none(), st.integers(0, 60)))
        made.append(Visit(submit, draw(st.integers(0, 30)), leaves))
    return made


def live_through(
    engine: Engine, runner: HistoryRunner, day: list[Visit], check: Callable[[], None]
) -> None:
    """Lets the visitors of a day come and go, with `check` after every step. In the end all answers
    are those of an empty world, those who left heard a beginning of theirs, and every page is back.
    """
    heard = Heard()
    now = 0
    while engine.has_work() or any(visit.comes_at >= now for visit in day):
        for visit in day:
            if visit.comes_at == now:
                engine.submit(visit.submit)
            if visit.leaves_at == now:
                engine.abort(visit.submit.id)
        heard.add(engine.step())
        check()
        now += 1
        assert now < 20_000, "somebody starves"
    assert engine.scheduler.pool.n_used == 0
    for visit in day:
        answer, full = heard.answer(visit.submit.id), expected(visit.submit, runner)
        if answer.finish is None:
            assert visit.leaves_at is not None and visit.leaves_at >= visit.comes_at
            assert answer.tokens == full.tokens[: len(answer.tokens)]
        else:
            assert answer == full
