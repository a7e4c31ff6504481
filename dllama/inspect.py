"""The contents of a model file, as plain data and as a table for the terminal. Files that this
version cannot run are shown too, with the reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats import FORMATS, first_bytes, open_model
from dllama.formats.gguf import MAGIC as GGUF_MAGIC
from dllama.formats.gguf import GgufFile
from dllama.formats.gguf_config import ROPE_FACTORS
from dllama.formats.gguf_source import GgufSource

TOKENIZER_KINDS = {"llama": "SentencePiece", "gpt2": "byte-level BPE"}

_LAYER = re.compile(r"^(blk|layers)\.\d+\.")


@dataclass(slots=True)
class TensorGroup:
    """The tensors that play one role in all layers. `types` counts tensors by type name;
    `n_bytes` is None where a type is of unknown size."""

    name: str
    dims: list[int]  # rows and columns, or the one size of a vector
    types: dict[str, int] = field(default_factory=dict)
    n_values: int = 0
    n_bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    kind: str
    pre: str | None
    n_tokens: int
    bos_id: int | None
    eos_id: int | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts that `dllama inspect` shows. `config` is None where the file cannot be run; then
    `unsupported` says why. `tokenizer` is None where the file has none."""

    path: str
    format: str
    n_parts: int
    n_bytes: int
    name: str
    arch: str
    context: int | None
    n_parameters: int
    config: ModelConfig | None
    tokenizer: TokenizerFacts | None
    has_chat_template: bool
    groups: list[TensorGroup]
    unsupported: str | None

    def as_json(self) -> dict[str, object]:
        """The facts as dicts, lists, numbers and strings."""
        return asdict(self)


def describe(path: str | Path) -> ModelFacts:
    """The facts of a model file. Raises ModelFileError where it is damaged or no model at all."""
    path = Path(path)
    return _describe_gguf(path) if first_bytes(path) == GGUF_MAGIC else _describe_other(path)


def _describe_gguf(path: Path) -> ModelFacts:
    file = GgufFile(path)
    try:
        config, unsupported = _try_config(path)
        metadata = file.metadata
        arch = str(metadata.get("general.architecture", "unknown"))
        context = metadata.get(f"{arch}.context_length")
        rows = [(t.name, t.dims[::-1], t.type_name, t.n_bytes) for t in file.tensors.values()]
        return ModelFacts(
            path=str(path),
            format=f"GGUF version {file.version}",
            n_parts=len(file.parts),
            n_bytes=file.n_bytes,
            name=str(metadata.get("general.name", path.stem)),
            arch=arch,
            context=config.max_seq_len if config else context if type(context) is int else None,
            n_parameters=sum(prod(dims) for name, dims, _, _ in rows if name != ROPE_FACTORS),
            config=config,
            tokenizer=_tokenizer(file),
            has_chat_template=isinstance(metadata.get("tokenizer.chat_template"), str),
            groups=_groups(rows),
            unsupported=unsupported,
        )
    finally:
        file.close()


def _try_config(path: Path) -> tuple[ModelConfig | None, str | None]:
    """Returns the config of a GGUF file that can be run, or the sentence that says why it
    cannot."""
    try:
        source = GgufSource(path)
    except ModelFileError as error:
        return None, str(error)
    source.close()
    return source.config, None


def _describe_other(path: Path) -> ModelFacts:
    source = open_model(path)
    try:
        config = source.config
        rows = [
            (t.name, (t.rows, t.cols) if t.rows > 1 else (t.cols,), t.qtype.name, t.n_bytes)
            for t in source.tensors.values()
        ]
        return ModelFacts(
            path=str(path),
            format=FORMATS[first_bytes(path)][0],
            n_parts=1,
            n_bytes=path.stat().st_size,
            name=config.name,
            arch=config.arch,
            context=config.max_seq_len,
            n_parameters=sum(prod(dims) for _, dims, _, _ in rows),
            config=config,
            tokenizer=None,
            has_chat_template=False,
            groups=_groups(rows),
            unsupported=None,
        )
    finally:
        source.close()


def _tokenizer(file: GgufFile) -> TokenizerFacts | None:
    metadata = file.metadata
    n_tokens = metadata.array_length("tokenizer.ggml.tokens")
    if n_tokens is None:
        return None
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    return TokenizerFacts(
        kind=TOKENIZER_KINDS.get(str(kind), str(kind)),
        pre=pre if isinstance(pre, str) else None,
        n_tokens=n_tokens,
        bos_id=_token_id(metadata, "bos"),
        eos_id=_token_id(metadata, "eos"),
    )


def _token_id(metadata: Mapping[str, object], which: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{which}_token_id")
    return value if type(value) is int else None


def _groups(rows: Sequence[tuple[str, tuple[int, ...], str, int | None]]) -> list[TensorGroup]:
    """Returns one group for each role, in file order; a role with several shapes has several
    groups."""
    groups: dict[tuple[str, tuple[int, ...]], TensorGroup] = {}
    for name, dims, type_name, n_bytes in rows:
        role = _LAYER.sub(r"\1.*.", name)
        group = groups.setdefault((role, dims), TensorGroup(role, list(dims)))
        group.types[type_name] = group.types.get(type_name, 0) + 1
        group.n_values += prod(dims)
        known = group.n_bytes is not None and n_bytes is not None
        group.n_bytes = (group.n_bytes or 0) + (n_bytes or 0) if known else None
    return list(groups.values())


def render(facts: ModelFacts) -> RenderableType:
    """Returns the facts for a terminal: a sheet, the tensors by role, and why the file cannot be
    run."""
    parts: list[RenderableType] = [_sheet(facts)]
    if facts.groups:
        parts += [Text(), _tensor_table(facts.groups)]
    if facts.unsupported:
        parts.append(Text(f"\nCannot be run: {facts.unsupported}", style="bold red"))
    return Group(*parts)


def _sheet(facts: ModelFacts) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    parts = f" in {facts.n_parts} parts" if facts.n_parts > 1 else ""
    rows = {
        "file": facts.path,
        "format": f"{facts.format}, {size_text(facts.n_bytes)}{parts}",
        "model": f"{facts.name} ({facts.arch})",
        "parameters": count_text(facts.n_parameters),
        "context": f"{facts.context} tokens" if facts.context else "not said",
        **_config_rows(facts.config),
        "tokenizer": _tokenizer_text(facts.tokenizer),
        "chat template": "yes" if facts.has_chat_template else "no",
    }
    for key, value in rows.items():
        table.add_row(key, Text(value))
    return table


def _config_rows(config: ModelConfig | None) -> dict[str, str]:
    if config is None:
        return {}
    rope = f"theta {config.rope_theta:g}"
    if config.rope_scaling:
        rope += f", {config.rope_scaling.kind} scaling by {config.rope_scaling.factor:g}"
    if config.rope_factors:
        rope += ", with factors"
    traits = {
        "q/k/v biases": config.has_qkv_bias,
        "q/k norms": config.has_qk_norm,
        "head tied to embedding": config.is_tied,
    }
    experts = {}
    if config.n_experts:
        shared = f", and a shared one of {config.shared_hidden_dim}" * config.n_shared_gates
        experts["experts"] = (
            f"{config.n_experts} of {config.hidden_dim} columns, of which a token takes "
            f"{config.n_active_experts}{shared}"
        )
    return {
        "layers": f"{config.n_layers} of width {config.dim}, hidden {config.hidden_dim}",
        **experts,
        "heads": f"{config.n_heads} ({config.n_kv_heads} key/value) of {config.head_dim}",
        "vocabulary": f"{config.vocab_size} tokens",
        "rope": rope,
        "traits": ", ".join(trait for trait, has in traits.items() if has) or "plain",
    }


def _tokenizer_text(tokenizer: TokenizerFacts | None) -> str:
    if tokenizer is None:
        return "none in the file"
    pre = f", pre-tokenizer {tokenizer.pre}" if tokenizer.pre else ""
    ends = f"BOS {tokenizer.bos_id}, EOS {tokenizer.eos_id}"
    return f"{tokenizer.kind}{pre}, {tokenizer.n_tokens} tokens, {ends}"


def _tensor_table(groups: list[TensorGroup]) -> Table:
    table = Table("tensor", "shape", "types", "bytes", box=None, padding=(0, 2, 0, 0))
    table.columns[3].justify = "right"
    for group in groups:
        types = ", ".join(f"{n} x {name}" for name, n in group.types.items())
        n_bytes = "?" if group.n_bytes is None else size_text(group.n_bytes)
        table.add_row(Text(group.name), " x ".join(map(str, group.dims)), types, n_bytes)
    return table


def size_text(n_bytes: int) -> str:
    """Bytes in decimal units: 1234567 is "1.23 MB"."""
    return _scaled(n_bytes, (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))) or f"{n_bytes} bytes"


def count_text(n: int) -> str:
    """A number of parameters: 1234567890 is "1.23 B"."""
    return _scaled(n, (("B", 10**9), ("M", 10**6), ("K", 10**3))) or str(n)


def _scaled(n: int, units: tuple[tuple[str, int], ...]) -> str:
    """Three digits and the largest unit that fits; "" below the smallest."""
    for unit, size in units:
        if n >= size:
            digits = f"{n / size:.3g}" if n < 999.5 * size else f"{n / size:.0f}"
            return f"{digits} {unit}"
    return ""
