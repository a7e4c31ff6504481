"""How long the parts of a request took, told of recorded times."""

from __future__ import annotations

from dataclasses import dataclass

from api.timeline import Phase, Timeline
from dllama.requests import FinishReason


@dataclass
class Times:
    """Satisfies api.timeline.TimedSequence."""

    submitted_at: float
    waited_s: float = 0.0
    first_at: float | None = None
    last_at: float = 0.0
    finish: FinishReason | None = None
    n_prompt: int = 5
    n_cached: int = 0
    n_completion: int = 7


def test_nothing_is_told_of_a_request_without_a_model() -> None:
    assert Timeline(1.0).server_timing() == ""


def test_the_phases_of_an_answer() -> None:
    timeline = Timeline(10.0)
    timeline.note_model("toy", 10.0, 10.5, None)
    assert timeline.server_timing() == "load;dur=500.0"
    one = Times(10.5, 0.25)
    timeline.note_sequences([one])
    assert timeline.server_timing() == "load;dur=500.0"  # nothing of it is known yet
    one.first_at = one.last_at = 11.75
    assert timeline.server_timing() == "queue;dur=250.0, load;dur=500.0, prompt;dur=1000.0"
    one.last_at, one.finish = 13.75, FinishReason.STOP
    assert timeline.server_timing().endswith("prompt;dur=1000.0, decode;dur=2000.0")
    assert [phase.name for phase in timeline.phases()] == ["load", "queue", "prompt", "decode"]
    assert timeline.n_tokens() == (5, 7)


def test_a_turn_before_a_load_and_behind_it_is_the_queue() -> None:
    timeline = Timeline(0.0)
    timeline.note_model("toy", 0.0, 10.0, (2.0, 7.0))
    assert timeline.phases() == [
        Phase("queue", 0.0, 2.0), Phase("load", 2.0, 7.0), Phase("queue", 7.0, 10.0),
    ]  # fmt: skip
    assert timeline.milliseconds() == {"queue": 5000.0, "load": 5000.0}


def test_who_comes_during_a_load_waits_for_the_rest_of_it_and_after_it_for_none() -> None:
    timeline = Timeline(4.0)
    timeline.note_model("toy", 4.0, 7.0, (2.0, 7.0))
    assert timeline.milliseconds() == {"load": 3000.0}
    late = Timeline(8.0)
    late.note_model("toy", 8.0, 9.0, (2.0, 7.0))
    assert late.milliseconds() == {"queue": 1000.0, "load": 0.0}


def test_of_several_choices_the_first_token_and_the_last_count() -> None:
    timeline = Timeline(0.0)
    slow = Times(0.0, 3.0, 4.0, 9.0, FinishReason.STOP)
    quick = Times(0.0, 1.0, 2.0, 5.0, FinishReason.STOP)
    timeline.note_sequences([slow, quick])
    assert timeline.milliseconds() == {"queue": 1000.0, "prompt": 1000.0, "decode": 7000.0}
    slow.finish = None
    assert "decode" not in timeline.milliseconds()


def test_an_engine_that_says_it_waited_longer_than_it_took_makes_no_negative_time() -> None:
    timeline = Timeline(0.0)
    timeline.note_sequences([Times(0.0, 9.0, 2.0, 2.0, FinishReason.STOP)])
    assert timeline.milliseconds() == {"queue": 2000.0, "prompt": 0.0, "decode": 0.0}
