"""Reads a description of nodes and links, for plans of what is not there to be measured.

A description is TOML: tables of nodes, one of the network between them, others of single links,
and one of a model where no model file is named. Knows no kernels and no sockets.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from cluster.planning.links import LinkSpeed, Network
from cluster.planning.predict import PlanNode
from cluster.planning.report import NamedLink
from dllama.config import ModelConfig
from dllama.errors import ConfigError
from dllama.models import FAMILIES
from dllama.models.delta import ATTENTION_OR_DELTA
from dllama.models.latent import LATENT_ATTENTION
from dllama.models.windows import layers_of, pattern_of
from dllama.qtypes import BLOCK, COMPUTABLE, QType
from dllama.speeds import KernelSpeeds, TypeSpeed

MAX_BYTES = 1 << 20
MAX_NODES = 64
OPTIONAL = {"step_us": 300.0, "half_layer_us": 30.0, "vector_gvalue_per_s": 0.3,
            "attention_gop_per_s": 10.0, "sum_gb_per_s": 1.0}  # fmt: skip
"""What a node of four small cores has, where a description does not say it."""
MAX_SIZE = 1 << 28  # of a model, in any direction
LEAST, MOST = 1e-6, 1e12  # of speeds, times and memory: what lies beyond was mistyped
SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size")

Table = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Description:
    """Nodes, the root first, their network, and perhaps a model with the type of its matrices."""

    nodes: list[PlanNode]
    network: Network
    links: list[NamedLink]
    model: tuple[ModelConfig, QType] | None


def read_description(path: Path) -> Description:
    """Reads a file. Raises ConfigError that names the file and what is wrong in it."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES} bytes; it is no description of nodes")
    try:
        return parse_description(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_description(text: str) -> Description:
    """Reads a text. Raises ConfigError, tomllib.TOMLDecodeError."""
    found = tomllib.loads(text)
    _check_keys(found, {"model", "nodes", "network", "links"}, "the description")
    tables = found.get("nodes")
    if not isinstance(tables, list) or not tables:
        raise ConfigError("there are no nodes; write a table [[nodes]] for each, the root first")
    nodes = [node for table in tables for node in _nodes(_table(table, "a node"))]
    if len(nodes) > MAX_NODES:
        raise ConfigError(f"there are {len(nodes)} nodes, and at most {MAX_NODES} are planned for")
    labels = [node.label for node in nodes]
    if len(set(labels)) < len(labels):
        raise ConfigError(
            f"two nodes have one name: {', '.join(labels)}; expected a name of its own for each"
        )
    links = dict(_links(found.get("links", []), labels))
    rest = None
    if "network" in found or (len(nodes) > 1 and not links):
        rest = _link(_table(found.get("network"), "the network"), "the network")
    network = Network(links, rest)
    named = [
        NamedLink((labels[a], labels[b]), network.between(a, b))
        for a, b in combinations(range(len(nodes)), 2)
        if (a, b) in links or a == 0
    ]
    model = _model(_table(found["model"], "the model")) if "model" in found else None
    return Description(nodes, network, named, model)


def _nodes(table: Table) -> Iterator[PlanNode]:
    known = {"name", "count", "memory_gb", "read_gb_per_s", "multiply_gop_per_s", *OPTIONAL}
    _check_keys(table, known, "a node")
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a node has the name {name!r}; expected a text")
    count = table.get("count", 1)
    if type(count) is not int or not 1 <= count <= MAX_NODES:
        raise ConfigError(f"{name} has the count {count!r}; expected 1 to {MAX_NODES}")
    read, multiply, memory_gb = (
        _number(table, key, name) for key in ("read_gb_per_s", "multiply_gop_per_s", "memory_gb")
    )
    rest = {key: _number(table, key, name, default) for key, default in OPTIONAL.items()}
    types = [TypeSpeed(qtype, read, multiply) for qtype in COMPUTABLE]
    for i in range(1, count + 1):
        label = name if count == 1 else f"{name} {i}"
        yield PlanNode(label, label, KernelSpeeds(types, **rest), int(memory_gb * 1e9))


def _links(tables: object, labels: list[str]) -> Iterator[tuple[tuple[int, int], LinkSpeed]]:
    if not isinstance(tables, list):
        raise ConfigError("links are tables [[links]]")
    for each in tables:
        table = _table(each, "a link")
        ends = table.get("between")
        names = ends if isinstance(ends, list) else []
        is_pair = len(names) == 2 and names[0] != names[1]
        if not is_pair or any(name not in labels for name in names):
            raise ConfigError(
                f"a link is between {ends!r}; expected the names of two different nodes among "
                f"{', '.join(labels)}"
            )
        first, second = sorted(labels.index(name) for name in names)
        yield (first, second), _link(table, f"the link of {names[0]} and {names[1]}")


def _link(table: Table, what: str) -> LinkSpeed:
    _check_keys(table, {"between", "interface", "latency_us", "gbit_per_s"}, what)
    latency, gbit = (_number(table, key, what) for key in ("latency_us", "gbit_per_s"))
    return LinkSpeed.rated(latency, gbit, _text(table, "interface", what, ""))


def _model(table: Table) -> tuple[ModelConfig, QType]:
    known = {"arch", "name", "type", "max_seq_len", "is_tied", "window", *SIZES}
    _check_keys(table, known, "the model")
    sizes = {key: _size(table, key) for key in SIZES}
    if sizes["n_heads"] % sizes["n_kv_heads"]:
        raise ConfigError("the model's n_heads is no multiple of its n_kv_heads")
    arch, type_name, name = (
        _text(table, key, "the model", default)
        for key, default in (("arch", "llama"), ("type", "Q4_0"), ("name", "model"))
    )
    is_tied = table.get("is_tied", False)
    if not isinstance(is_tied, bool):
        raise ConfigError(f"the model has is_tied {is_tied!r}; expected true or false")
    types = {qtype.name: qtype for qtype in COMPUTABLE}
    if arch not in FAMILIES or type_name not in types:
        raise ConfigError(
            f"the model is of arch {arch!r} and type {type_name!r}; expected one of "
            f"{', '.join(FAMILIES)}, and one of {', '.join(types)}"
        )
    if FAMILIES[arch].attention in (ATTENTION_OR_DELTA, LATENT_ATTENTION):
        raise ConfigError(
            f"models of arch {arch} have layers that a description cannot tell of; name a model "
            "file in its place (-m)"
        )
    _check_blocks(sizes, types[type_name])
    rule = FAMILIES[arch].windows
    window = _size(table, "window") if "window" in table else rule.default
    layers = pattern_of(sizes["n_layers"], rule.every) if window else []
    config = ModelConfig(
        arch=arch, name=name, dim=sizes["dim"],
        hidden_dim=sizes["hidden_dim"], n_layers=sizes["n_layers"], n_heads=sizes["n_heads"],
        n_kv_heads=sizes["n_kv_heads"], head_dim=sizes["head_dim"],
        vocab_size=sizes["vocab_size"], max_seq_len=_size(table, "max_seq_len", 8192),
        norm_epsilon=1e-5, rope_theta=5e5, is_tied=is_tied,
        attention_layers=layers_of(rule, window, layers),
    )  # fmt: skip
    return config, types[type_name]


def _check_blocks(sizes: Mapping[str, int], qtype: QType) -> None:
    """Raises ConfigError where rows do not end at a block of a type, or heads cannot be rotated."""
    values = BLOCK[qtype].values
    rows = {"dim": sizes["dim"], "hidden_dim": sizes["hidden_dim"],
            "n_heads * head_dim": sizes["n_heads"] * sizes["head_dim"]}  # fmt: skip
    for key, size in rows.items():
        if size % values:
            raise ConfigError(
                f"the model has {key} {size}; expected a multiple of {values}, which a block of "
                f"{qtype.name} holds"
            )
    if sizes["head_dim"] % 2:
        raise ConfigError(f"the model has head_dim {sizes['head_dim']}; expected an even number")


def _size(table: Table, key: str, default: int | None = None) -> int:
    size = table.get(key, default)
    if type(size) is not int or not 0 < size < MAX_SIZE:
        raise ConfigError(
            f"the model has {key} {size!r}; expected a whole number from 1 to {MAX_SIZE - 1}"
        )
    return size


def _table(value: object, what: str) -> Table:
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is missing, or is no table")
    return value


def _check_keys(table: Table, known: set[str], what: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise ConfigError(
            f"{what} has {', '.join(unknown)}, which nobody reads; known are "
            f"{', '.join(sorted(known))}"
        )


def _text(table: Table, key: str, what: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ConfigError(f"{what} has {key} {value!r}; expected a text")
    return value


def _number(table: Table, key: str, what: str, default: float | None = None) -> float:
    value = table.get(key, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not LEAST <= value <= MOST:  # type: ignore[operator]
        raise ConfigError(
            f"{what} has {key} {value!r}; expected a number from {LEAST:g} to {MOST:g}"
        )
    return float(value)  # type: ignore[arg-type]
