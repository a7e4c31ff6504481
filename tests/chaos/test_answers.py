"""Answers are compared by what they say, however they were cut into pieces."""

from __future__ import annotations

import pytest

from tests.chaos.answers import Answer, errors_in


def answer(*pieces: object) -> Answer:
    made = Answer()
    for piece in pieces:
        made.add(piece)
    return made


def chunk(text: str, **more: object) -> dict[str, object]:
    return {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, **more}]}


def test_the_cut_into_pieces_does_not_matter() -> None:
    assert not answer(chunk("Hel"), chunk("lo")).differences(answer(chunk("H"), chunk("ello")))


@pytest.mark.parametrize(
    "other",
    [
        answer(chunk("Hel"), chunk("Hel"), chunk("lo")),  # a piece twice
        answer(chunk("lo")),  # a piece missing
        answer(chunk("Hel"), chunk("lo"), chunk("", finish_reason="length")),
        answer(chunk("Hel"), chunk("lo"), {"usage": {"completion_tokens": 3}}),
        answer(chunk("Hel"), chunk("lo"), {"end": "[DONE]"}),
    ],
)
def test_what_was_told_otherwise_is_a_difference(other: Answer) -> None:
    assert answer(chunk("Hel"), chunk("lo")).differences(other)


def test_logprobs_are_compared_to_the_last_digit() -> None:
    one, two = (
        answer(chunk("a", logprobs={"content": [{"token": "a", "logprob": value}]}))
        for value in (-0.1, -0.1000000001)
    )
    assert not one.differences(one) and one.differences(two)


def test_names_and_times_that_are_always_new_are_left_out() -> None:
    assert not answer({"id": "1", "created": 5}).differences(answer({"id": "2", "created": 6}))


def test_choices_are_told_apart_by_their_index() -> None:
    def of(*order: int) -> Answer:
        return answer(*({"choices": [{"index": k, "delta": {"content": str(k)}}]} for k in order))

    assert not of(0, 1, 0).differences(of(0, 0, 1))
    assert of(0, 1).differences(of(1, 1))


def test_figures_that_grow_count_by_their_last_value() -> None:
    steps = [{"tokens_predicted": n} for n in (1, 2, 5)]
    assert not answer(*steps).differences(answer(steps[-1]))
    assert answer(*steps).differences(answer(steps[0]))


def test_a_ping_says_nothing() -> None:
    assert not answer({"type": "ping"}).differences(answer())


@pytest.mark.parametrize(
    "event",
    [{"error": {"message": "x"}}, {"type": "error", "error": {}}, {"type": "response.failed"}],
)
def test_errors_in_a_stream_are_found(event: dict[str, object]) -> None:
    assert list(errors_in(event))


def test_an_event_without_an_error_has_none() -> None:
    assert not list(errors_in({"error": None, "type": "message_stop"}))
