"""llama-server's progress and times in a stream of the Responses API."""

from __future__ import annotations

import orjson

from api.answers.events import Finish, Progress, Start, Text, Usage
from api.replies.responses import ResponsesWriter
from dllama.requests import FinishReason

USAGE = Usage(
    n_prompt=9, n_cached=2, n_completion=1, n_timed=0, n_drafted=0, n_accepted=0, prompt_s=0.5,
    completion_s=0.0, seed=1,
)  # fmt: skip


def told(*events) -> list[dict]:
    writer = ResponsesWriter("resp_1", "toy", {}, None)
    data = b"".join(map(writer.streamed, events))
    lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines]


def test_progress_is_an_event_of_the_response_in_progress() -> None:
    events = told(Start(0, 9, 0), Progress(0, 9, 2, 2, 0.0), Progress(0, 9, 2, 9, 0.25))
    _, _, first, last = events
    assert first["type"] == last["type"] == "response.in_progress"
    assert [e["sequence_number"] for e in events] == [0, 1, 2, 3]
    assert first["prompt_progress"] == {"total": 9, "cache": 2, "processed": 2, "time_ms": 0.0}
    assert last["prompt_progress"]["processed"] == 9 and "timings" not in last
    assert last["response"]["status"] == "in_progress"


def test_deltas_have_times_where_they_are_wanted() -> None:
    ending = Finish(0, FinishReason.STOP, USAGE), USAGE
    for usage, has_timings in ((USAGE, True), (None, False)):
        events = told(Start(0, 9, 0), Text(0, "Hi", usage=usage), *ending)
        [delta] = [e for e in events if e["type"] == "response.output_text.delta"]
        assert delta["delta"] == "Hi" and ("timings" in delta) == has_timings
        assert events[-1]["type"] == "response.completed"
        assert events[-1]["timings"]["prompt_n"] == 7
