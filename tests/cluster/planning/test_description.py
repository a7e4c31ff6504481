from __future__ import annotations

from pathlib import Path

import pytest

from cluster.planning.description import parse_description, read_description
from dllama.errors import ConfigError
from dllama.qtypes import QType

EXAMPLES = Path(__file__).parents[3] / "examples" / "plans"
NODE = """
[[nodes]]
name = "a"
memory_gb = 8
read_gb_per_s = 10
multiply_gop_per_s = 100
"""
NETWORK = """
[network]
latency_us = 100
gbit_per_s = 1
"""
MODEL = """
[model]
dim = 64
hidden_dim = 128
n_layers = 2
n_heads = 4
n_kv_heads = 2
head_dim = 16
vocab_size = 100
"""


def test_a_model_may_have_a_window() -> None:
    """In the layers that its family says."""
    gemma = NODE + MODEL.replace("n_layers = 2", 'n_layers = 12\narch = "gemma3"\nwindow = 32')
    for text, n_near, window in ((gemma, 10, 32), (NODE + MODEL, 0, 0)):
        found = parse_description(text).model
        assert found is not None
        assert (found[0].n_window_layers, found[0].window) == (n_near, window)


def test_one_node_needs_no_network() -> None:
    found = parse_description(NODE)
    assert [node.label for node in found.nodes] == ["a"]
    assert found.nodes[0].free_bytes == 8 * 10**9
    assert found.model is None and not found.links
    speed = found.nodes[0].speeds.of(QType.Q6_K)
    assert speed is not None and (speed.read_gb_per_s, speed.multiply_gop_per_s) == (10, 100)


def test_a_count_makes_several_nodes_of_one_kind() -> None:
    found = parse_description(NODE + "count = 3" + NETWORK)
    assert [node.label for node in found.nodes] == ["a 1", "a 2", "a 3"]
    assert len({node.machine for node in found.nodes}) == 3
    assert found.network.between(1, 2).latency_us == 100


def test_a_single_link_differs_from_the_network() -> None:
    other = NODE.replace('"a"', '"b"')
    link = '\n[[links]]\nbetween = ["b", "a"]\nlatency_us = 7\ngbit_per_s = 10\n'
    found = parse_description(NODE + other + link)
    assert found.network.between(0, 1).latency_us == 7
    assert [each.between for each in found.links] == [("a", "b")]


def test_a_model_is_sizes_and_a_type() -> None:
    found = parse_description(NODE + MODEL + 'type = "Q8_0"')
    assert found.model is not None
    config, qtype = found.model
    assert (config.dim, config.n_kv_heads, qtype) == (64, 2, QType.Q8_0)


WRONG = {
    "no nodes": ("", "there are no nodes"),
    "no network": (NODE + "count = 2", "the network is missing"),
    "a name without text": (NODE.replace('"a"', "7"), "a node has the name 7"),
    "two of one name": (NODE + NODE + NETWORK, "two nodes have one name"),
    "no speed": (NODE.replace("read_gb_per_s = 10", ""), "read_gb_per_s None"),
    "a negative speed": (NODE.replace("= 100", "= -1"), "multiply_gop_per_s -1"),
    "no number": (NODE.replace("= 8", "= true"), "memory_gb True"),
    "endless": (NODE.replace("= 8", "= inf"), "memory_gb inf"),
    "not a number": (NODE.replace("= 8", "= nan"), "memory_gb nan"),
    "an unknown word": (NODE + "colour = 1", "a node has colour, which nobody reads"),
    "too many": (NODE + "count = 65", "expected 1 to 64"),
    "a link to nobody": (NODE + '[[links]]\nbetween = ["a", "x"]', "two different nodes among a"),
    "a link to itself": (NODE + '[[links]]\nbetween = ["a", "a"]', r"between \['a', 'a'\]"),
    "a link to a list": (NODE + '[[links]]\nbetween = [["a"], "a"]', r"between \[\['a'\], 'a'\]"),
    "a link through a number": (
        NODE + NETWORK + "interface = 7",
        "the network has interface 7; expected a text",
    ),
    "a list as an arch": (NODE + MODEL + 'arch = ["llama"]', r"arch \['llama'\]; expected a text"),
    "a number as a type": (NODE + MODEL + "type = 4", "type 4; expected a text"),
    "a number as a model's name": (NODE + MODEL + "name = 4", "name 4; expected a text"),
    "a text that is no truth": (NODE + MODEL + 'is_tied = "no"', "'no'; expected true or false"),
    "a model without a size": (NODE + MODEL.replace("dim = 64", "", 1), "has dim None"),
    "a huge model": (NODE + MODEL.replace("= 100", "= 999999999"), "vocab_size 999999999"),
    "uneven heads": (NODE + MODEL.replace("n_heads = 4", "n_heads = 5", 1), "no multiple"),
    "rows that end inside of a block": (
        NODE + MODEL.replace("hidden_dim = 128", "hidden_dim = 100"),
        "hidden_dim 100; expected a multiple of 32",
    ),
    "heads that cannot turn": (
        NODE
        + MODEL.replace("head_dim = 16", "head_dim = 17").replace("n_heads = 4", "n_heads = 32", 1),
        "head_dim 17; expected an even number",
    ),
    "a speed of nearly nothing": (
        NODE.replace("= 100", "= 1e-300"),
        "expected a number from 1e-06",
    ),
    "another family": (NODE + MODEL + 'arch = "eliza"', "arch 'eliza'"),
    "another type": (NODE + MODEL + 'type = "Q9"', "type 'Q9'"),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_description(text)


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "nodes.toml"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_description(file)
    for data, said in ((b"[[nodes", "is no TOML"), (b"\xff\xfe", "is no TOML"),
                       (b"#" * ((1 << 20) + 1), "more than")):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(ConfigError, match=said):
            read_description(file)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_can_be_read(path: Path) -> None:
    found = read_description(path)
    assert found.nodes and found.model is not None
