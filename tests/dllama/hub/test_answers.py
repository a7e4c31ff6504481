"""What an HTTP answer means for a file of which a part is here, when it is tried again, and who is
asked."""

from __future__ import annotations

import pytest

from dllama.errors import HubError, NotOnHub
from dllama.hub import web_rules
from dllama.hub.answers import Passing, Wanted, WrongContent, begins_at, refusal
from dllama.hub.patience import Patience

REST = Wanted("x", 40, 100)
WHOLE = Wanted("x", 0, 100)
HUB = "https://hub.example"


def test_an_answer_begins_where_it_says() -> None:
    assert begins_at(WHOLE, 200, {"Content-Length": "100"}) == 0
    assert begins_at(WHOLE, 200, {}) == 0, "a length is not always told"
    assert begins_at(REST, 206, {"Content-Range": "bytes 40-99/100"}) == 40
    assert begins_at(REST, 206, {"Content-Range": "bytes 40-59/*"}) == 40
    assert begins_at(REST, 200, {"Content-Length": "100"}) == 0, "it knows no ranges"
    assert "Range" not in WHOLE.headers and REST.headers["Range"] == "bytes=40-"


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"Content-Length": "99"}),
        (200, {"Content-Encoding": "gzip"}),
        (206, {"Content-Range": "bytes 40-98/99"}),
        (206, {"Content-Range": "bytes 0-99/100"}),
        (206, {"Content-Range": "bytes 40-100/100"}),
        (206, {"Content-Range": "bytes 40-39/100"}),
        (416, {}),
    ],
)
def test_other_bytes_than_asked_for_are_wrong(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(WrongContent):
        begins_at(REST, status, headers)


@pytest.mark.parametrize("told", ["", "bytes x-y/z", "bytes -1-5/100", "items 40-99/100"])
def test_a_part_that_says_not_which_is_tried_again(told: str) -> None:
    with pytest.raises(Passing):
        begins_at(REST, 206, {"Content-Range": told})


def test_refusals_are_for_now_or_for_good() -> None:
    for status in (408, 429, 500, 502, 503, 504):
        assert isinstance(refusal("x", status, {}), Passing)
    for status in (401, 403, 404, 410):
        assert isinstance(refusal("x", status, {}), NotOnHub)
    assert isinstance(refusal("x", 400, {}), HubError)
    assert "terms" in str(refusal("x", 401, {"X-Error-Code": "GatedRepo"}))
    waits = {"7": 7.0, "999999": 300.0, "Wed, 21 Oct 2026 07:28:00 GMT": 0.0, "-1": 0.0, "": 0.0}
    for told, expected in waits.items():
        found = refusal("x", 429, {"Retry-After": told})
        assert isinstance(found, Passing) and found.after_s == expected


def test_patience_ends_after_tries_in_a_row_that_bring_nothing() -> None:
    patience = Patience(4, 1.0, 3.0)
    assert [patience.after_failure(0) for _ in range(4)] == [1.0, 2.0, 3.0, None]
    patience = Patience(2, 1.0, 60.0)
    assert [patience.after_failure(1) for _ in range(9)] == [1.0] * 9, "it gets on"
    assert Patience(4, 1.0, 3.0).after_failure(0, asked_s=20.0) == 20.0
    assert Patience(1, 1.0, 3.0).after_failure(5) is None, "one try is one try"


def test_the_token_is_for_the_hub_alone() -> None:
    assert web_rules.headers_for(f"{HUB}/x", HUB, "t") == {"Authorization": "Bearer t"}
    for url in ("https://hub.example:444/x", "http://hub.example/x", "https://cdn.example/x",
                "https://hub.example.evil/x", "https://evil/hub.example"):  # fmt: skip
        assert web_rules.headers_for(url, HUB, "t") == {}
    assert web_rules.headers_for(f"{HUB}/x", HUB, None) == {}


def test_addresses_that_are_followed() -> None:
    assert web_rules.next_hop(f"{HUB}/a/b", "/c", HUB) == f"{HUB}/c"
    assert web_rules.next_hop(f"{HUB}/a", "https://cdn/x?s=1", HUB) == "https://cdn/x?s=1"
    mirror = "http://10.0.0.1:8000"
    assert web_rules.next_hop(f"{mirror}/a", "http://10.0.0.1:9000/x", mirror)
    for told in ("http://cdn/x", "http://169.254.169.254/", "file:///etc/passwd", "", None,
                 "https://[/", "javascript:x", "https://h:99999/"):  # fmt: skip
        with pytest.raises(HubError):
            web_rules.next_hop(f"{HUB}/a", told, HUB)
    assert web_rules.without_query("https://u:p@h/a?signature=x#y") == "https://h/a"
