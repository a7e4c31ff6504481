"""The facts of a model as a table for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dllama.config import ModelConfig, RopeScalingKind
from dllama.inspect.facts import ModelFacts, TensorGroup, TokenizerFacts
from dllama.sharding.memory import state_bytes


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
    if config.partial_rotary_dim:
        rope += f", {config.rotary_dim} values of a head"
    if scaling := config.rope_scaling:
        longer = f"from {scaling.original_max_seq_len} tokens on"
        size = longer if scaling.kind is RopeScalingKind.LONGROPE else f"by {scaling.factor:g}"
        rope += f", {scaling.kind} scaling {size}"
    if config.rope_factors:
        rope += ", with factors"
    windows = [kind.window for kind in config.attention_layers if kind.window is not None]
    n_unrotated = sum(not kind.is_rotated for kind in config.attention_layers)
    if n_unrotated:
        rope += f", not in {n_unrotated} layers"
    if config.local_rope_theta is not None and windows:
        rope += f", theta {config.local_rope_theta:g} in layers with a window"
    attention = {}
    if (latent := config.latent) is not None:
        queries = f", queries of {latent.q_rank}" * (latent.q_rank > 0)
        attention["latent"] = (
            f"{latent.width} values of a token and layer for all heads, {latent.rope_dim} of them "
            f"rotated{queries}"
        )
    if windows:
        kind = "chunks" if config.attention_of(0).is_chunked else "windows"
        attention[kind] = f"{max(windows)} tokens in {len(windows)} of {config.n_layers} layers"
    traits = {
        "q/k/v biases": config.has_qkv_bias,
        "q/k norms": config.has_qk_norm or config.has_plain_qk_norm,
        "head tied to embedding": config.is_tied,
    }
    experts = {}
    if config.n_experts:
        has_shared = config.shared_hidden_dim > 0
        shared = f", and a shared one of {config.shared_hidden_dim}" * has_shared
        experts["experts"] = (
            f"{config.n_experts} of {config.hidden_dim} columns, of which a token takes "
            f"{config.n_active_experts}{shared}"
        )
    deltas = {}
    if (sizes := config.delta) is not None:
        n_states = config.n_layers - config.n_kv_layers
        one = size_text(state_bytes(config, sizes.n_key_heads))
        deltas["states"] = (
            f"{n_states} layers are gated delta nets of {sizes.n_value_heads} heads, "
            f"{sizes.key_dim} x {sizes.value_dim}; {one} for each conversation"
        )
    of_keys = f" ({config.n_kv_heads} key/value)" if config.latent is None else ""
    hidden = str(config.hidden_dim)
    if config.n_dense_layers:
        hidden += f" (the first {config.n_dense_layers} dense, {config.dense_hidden_dim})"
    elif config.n_other_layers:
        hidden += f" ({config.n_other_layers} dense, {config.dense_hidden_dim})"
    return {
        "layers": f"{config.n_layers} of width {config.dim}, hidden {hidden}",
        **experts,
        **deltas,
        "heads": f"{config.n_heads}{of_keys} of {config.head_dim}",
        "vocabulary": f"{config.vocab_size} tokens",
        **attention,
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
