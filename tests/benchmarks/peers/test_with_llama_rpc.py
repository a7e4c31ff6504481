"""llama.cpp's RPC as a peer: half of the weights on each side, and its rates read."""

from __future__ import annotations

import json

import pytest

from benchmarks.names import parse_test
from benchmarks.peers.with_llama_rpc import command_of, rate, remote_layers

SAID = json.dumps({"pp": 512, "tg": 1, "speed_pp": 52.9, "speed_tg": 16.0})


@pytest.mark.parametrize(
    ("layer", "head", "n_layers", "expected"),
    [
        (61, 263, 16, 7),  # 1B: the head and 6 layers, 629 of 1,239
        (218, 525, 32, 16),  # 8B: the head and 15
        (1, 100, 4, 1),  # a head that is more than all layers
        (10, 0, 4, 3),
    ],
)
def test_a_server_has_half_of_the_weights(
    layer: int, head: int, n_layers: int, expected: int
) -> None:
    assert remote_layers(layer, head, n_layers) == expected


def test_rates_are_read() -> None:
    said = f"main: n_kv_max = 640\n{SAID}\n"
    assert rate(parse_test("pp512"), said) == 52.9
    assert rate(parse_test("tg64"), said) == 16.0
    with pytest.raises(ValueError, match="no rates; it ended with: 'no model'"):
        rate(parse_test("tg64"), "no model")


def test_a_context_has_room_for_every_sequence() -> None:
    words = ["program", "m.gguf", "1", "7", "10.0.0.2:50052"]
    for name, prompt, answer, batch in (("pp512", 512, 1, 1), ("tg64xb8", 1, 64, 8)):
        command = command_of(parse_test(name), words)
        given = dict(zip(command[1::2], command[2::2], strict=False))
        assert (int(given["-npp"]), int(given["-ntg"]), int(given["-npl"])) == (
            prompt, answer, batch,
        )  # fmt: skip
        assert int(given["-c"]) >= batch * (prompt + answer)
        assert given["-ngl"] == "7" and given["--rpc"] == "10.0.0.2:50052"
