"""Arguments as models write them become objects that JSON can hold."""

from __future__ import annotations

import orjson
import pytest

from api.answers.events import Message, Text
from api.replies.call_arguments import arguments_object
from api.requests.responses import with_answer
from api.tools.tagged import json_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}), ('{"a": 1}', {"a": 1}), ('{"a": "\\ud83d"}', {"a": "\ufffd"}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}), ('{"a": 1e999}', {"a": "1e999"}),
        ('{"a": NaN}', {"a": "NaN"}), ("{", {}), ("[" * 2000 + "]" * 2000, {}),
        ('{"a": 1e999, "b": ' + "9" * 30 + "}", {"a": "1e999", "b": "9" * 30}),
    ],
)  # fmt: skip
def test_arguments_are_an_object_that_can_be_written(text: str, expected: object) -> None:
    found = arguments_object(text)
    assert found == expected
    orjson.dumps(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NaN", '"NaN"'), ("Infinity", '"Infinity"'), ("1e999", "1e999"), ("5", "5"),
        ('["\\ud83d"]', '["\\ud83d"]'), ('{"a":1}', '{"a": 1}'), ("two words", '"two words"'),
    ],
)  # fmt: skip
def test_values_between_tags_stay_json(text: str, expected: str) -> None:
    assert json_value(text, {}) == expected
    json_value("[" * 5000, {}).encode()


def test_an_answer_that_continues_a_message_is_one_with_it() -> None:
    said = Message()
    said.add(Text(0, " 42."))
    asked = {"role": "user", "content": "Q"}
    begun = {"role": "assistant", "content": "It is", "reasoning_content": "Hm."}
    whole = {**begun, "content": "It is 42."}
    assert with_answer([asked, begun], said, is_continued=True) == [asked, whole]
    assert begun["content"] == "It is", "others may have it"
    alone = {"role": "assistant", "content": " 42."}
    assert with_answer([asked, begun], said, is_continued=False) == [asked, begun, alone]
    assert with_answer([asked], said, is_continued=False) == [asked, alone]
