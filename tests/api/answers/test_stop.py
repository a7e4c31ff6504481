"""Stop strings: the same answer however the text is cut, nothing held back that need not be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.stop import StopScanner, StopTable


def scan(pieces: list[str], stops: list[str]) -> tuple[str, str | None, list[str]]:
    scanner = StopScanner(StopTable(stops))
    out = [scanner.push(piece) for piece in pieces]
    out.append(scanner.flush())
    return "".join(out), scanner.found, out


def oracle(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the first end at which a stop string is complete, the longest of those."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


letters = st.text(alphabet="ab", max_size=30)
stop_lists = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=5)


@given(letters, stop_lists, st.lists(st.integers(0, 30), max_size=8))
def test_any_split_gives_what_the_definition_gives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    kept, found, _ = scan(pieces, stops)
    assert (kept, found) == oracle(text, stops)


def test_a_stop_string_after_the_beginning_of_another() -> None:
    """Several links lead from "abab" to where "d" begins."""
    assert scan(["ababd"], ["ababc", "d"])[:2] == oracle("ababd", ["ababc", "d"]) == ("abab", "d")


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=4))
def test_unicode_character_by_character(text: str, stops: list[str]) -> None:
    kept, found, _ = scan(list(text), stops)
    assert (kept, found) == oracle(text, stops)


@given(letters, stop_lists)
def test_holds_back_only_what_may_become_a_stop(text: str, stops: list[str]) -> None:
    scanner = StopScanner(StopTable(stops))
    out = ""
    for i, char in enumerate(text):
        out += scanner.push(char)
        if scanner.found is not None:
            return
        held = text[len(out) : i + 1]
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = text[: i + 1]
        assert not any(
            stop.startswith(longer[-k:])
            for stop in stops
            for k in range(len(held) + 1, min(len(longer), len(stop)) + 1)
        )


@pytest.mark.parametrize(
    ("pieces", "stops", "kept", "found"),
    [
        (["Hello wo", "rld!"], ["world"], "Hello ", "world"),
        (["one\n", "\ntwo"], ["\n\n"], "one", "\n\n"),
        (["one\n", "two"], ["\n\n"], "one\ntwo", None),
        (["aab"], ["ab"], "a", "ab"),
        (["abcd"], ["abcd", "bc"], "a", "bc"),
        (["xabc"], ["abc", "bc", "c"], "x", "abc"),
        (["stop here stop"], ["stop"], "", "stop"),
        (["<|e", "nd", "|", ">tail"], ["<|end|>", "<|im_end|>"], "", "<|end|>"),
        (["naïve ", "ca", "fé ☕"], ["fé ☕"], "naïve ca", "fé ☕"),
        (["ends with a half sto"], ["stop"], "ends with a half sto", None),
        (["free"], [], "free", None),
    ],
)
def test_examples(pieces: list[str], stops: list[str], kept: str, found: str | None) -> None:
    assert scan(pieces, stops)[:2] == (kept, found)


def test_text_without_a_beginning_of_a_stop_is_passed_on_at_once() -> None:
    _, _, out = scan(["Hello", " there", "\n", "you"], ["\n\nUser:"])
    assert out == ["Hello", " there", "", "\nyou", ""]


def test_nothing_comes_after_a_stop() -> None:
    scanner = StopScanner(StopTable(["x"]))
    assert scanner.push("axb") == "a"
    assert scanner.push("more") == ""
    assert scanner.flush() == ""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopTable([""])
