"""Lines of the log: one a record, whatever is in it, with what it is about."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from dllama.logs.context import about_model, about_request, is_sane_id, new_request_id
from dllama.logs.lines import JsonLines, TextLines


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("api.http", logging.WARNING, "", 1, message, args, None)
    made.created = 1_700_000_000.25
    vars(made).update(extra)
    return made


def failed(message: str) -> logging.LogRecord:
    made = record(message)
    try:
        raise ValueError("of two\nlines")
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def test_a_record_is_an_object_with_what_it_is_about() -> None:
    lines = JsonLines({"model": "toy", "rank": 2})
    with about_request("req-1"):
        told = json.loads(lines.format(record("%d of\n“it”", 3)))
    assert told == {
        "time": "2023-11-14T22:13:20.250Z", "level": "warning", "logger": "api.http",
        "message": "3 of\n“it”", "model": "toy", "rank": 2, "request_id": "req-1",
    }  # fmt: skip
    told = json.loads(JsonLines({}).format(record("plain")))
    assert list(told) == ["time", "level", "logger", "message"]


def test_a_record_brings_its_own_request_and_fields_but_no_other_message() -> None:
    made = record("said", request_id="own", fields={"status": 200, "level": "forged"})
    with about_request("of the task"):
        told = json.loads(JsonLines({}).format(made))
    assert (told["request_id"], told["status"], told["level"]) == ("own", 200, "warning")


def test_a_traceback_stays_in_its_line() -> None:
    line = JsonLines({}).format(failed("it broke"))
    assert "\n" not in line
    assert "ValueError: of two\nlines" in json.loads(line)["exception"]
    text = TextLines({}).format(failed("it broke"))
    assert text.splitlines()[0].endswith("WARNING api.http: it broke") and "Traceback" in text


@pytest.mark.parametrize("end", ["\n", "\r", "\x1b[2J", "\x85", "\u2028", "\0"])
def test_nobody_forges_a_line_or_steers_the_terminal(end: str) -> None:
    text = TextLines({}).format(record("GET %s", f"/a{end}12:00:00 ERROR"))
    assert len(text.splitlines()) == 1 and end[0] not in text
    assert len(JsonLines({}).format(record("GET %s", f"/a{end}b")).split("\n")) == 1


def test_lines_for_people_name_rank_and_request() -> None:
    with about_request("req-1"):
        assert "api.http rank 3 [req-1]: said" in TextLines({"rank": 3}).format(record("said"))
    assert "api.http: said" in TextLines({"rank": 0}).format(record("said"))


def test_a_task_is_about_a_request_and_its_model_until_it_ends() -> None:
    lines = JsonLines({"model": "of the process"})
    about_model("left over")
    with about_request("first"):
        assert json.loads(lines.format(record("x")))["model"] == "of the process"
        about_model("toy")
        assert json.loads(lines.format(record("x")))["model"] == "toy"
    about_model("")
    assert "request_id" not in json.loads(lines.format(record("x")))


def test_ids_that_may_stand_in_headers_and_logs() -> None:
    good = ("a", "req_0f3", "00-4bf92f3577b34da6-01", "a" * 128, "Root=1-67891233-abc", "x@y:z/+.")
    assert all(map(is_sane_id, good)) and is_sane_id(new_request_id())
    bad = ("", "a" * 129, "-a", "a b", "a\nb", "a\n", "ä", 'a"b', "a,b", "a;b", "<a>", "a\\b")
    assert not [text for text in bad if is_sane_id(text)]
