"""Flags of seconds have bounds: what no clock takes is refused before anything starts."""

from __future__ import annotations

import math

import pytest

from dllama.cli.flags.durations import MAX_SECONDS
from dllama.cli.flags.root import build_parser

FLAGS = {  # and what each takes below its lowest number of seconds
    "--rejoin-s": None, "--max-recover-s": None, "--drain-timeout": None, "--timeout": None,
    "--sleep-idle-seconds": "-1", "--sse-ping-interval": "-1",
}  # fmt: skip


def value(flag: str, text: str) -> object:
    args = build_parser().parse_args([f"{flag}={text}"])
    return vars(args)[flag.removeprefix("--").replace("-", "_")]


def test_no_flag_of_seconds_is_left_out() -> None:
    actions = build_parser()._actions
    named = {a.option_strings[-1] for a in actions if a.metavar == "S"}
    assert named | {"--sleep-idle-seconds"} == set(FLAGS)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("text", ["1e30", "inf", "-inf", "nan", "1000001", "soon", "", "9" * 400])
def test_what_is_no_number_of_seconds_is_refused_with_the_bounds(
    flag: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        value(flag, text)
    said = " ".join(capsys.readouterr().err.split())
    assert flag in said and f"{MAX_SECONDS:.0f}" in said


@pytest.mark.parametrize("flag", FLAGS)
def test_within_the_bounds_it_is_taken(flag: str) -> None:
    assert value(flag, "3") == 3.0 and value(flag, "1000000") == MAX_SECONDS
    never = FLAGS[flag]
    if never is None:
        with pytest.raises(SystemExit):
            value(flag, "-1")
    else:
        assert value(flag, never) in (None, math.inf)
