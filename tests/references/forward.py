"""The model as the paper has it: float64, whole sequences, no cache, no batching. The oracle that
every faster path of the project is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.writers.decode import decode
from dllama.config import Gating, LayerAttention, ModelConfig
from dllama.models import FAMILIES
from dllama.qtypes import QType
from dllama.rope import rope_frequencies
from dllama.weight_source import WeightSource
from kernels.gates import Gate

try:  # another hand's reading of the blocks, where it is installed
    import gguf  # noqa: F401

    from tests.kernels.weights.exact_values import exact_values

    def _values(raw: np.ndarray, qtype: int) -> np.ndarray:
        return exact_values(QType(qtype).name.lower(), np.ascontiguousarray(raw))
except ImportError:

    def _values(raw: np.ndarray, qtype: int) -> np.ndarray:
        return decode(raw, QType(qtype))


def tensor_values(source: WeightSource, name: str) -> np.ndarray:
    """A whole tensor as float64 (rows, cols)."""
    return _values(source.read(name), source.tensors[name].qtype).astype(np.float64)


def reference_logits(source: WeightSource, tokens: Iterable[int]) -> np.ndarray:
    """Logits after each of T tokens, float64 (T, vocab_size). Holds one layer at a time."""
    return _forward(lambda name: tensor_values(source, name), source, list(tokens))


def reference_greedy(source: WeightSource, tokens: Iterable[int], n_tokens: int) -> list[int]:
    """The `n_tokens` ids that follow `tokens`, each the one with the largest logit. Holds the
    whole model."""
    prompt = list(tokens)
    ids = list(prompt)
    values = {name: tensor_values(source, name) for name in source.tensors}
    for _ in range(n_tokens):
        ids.append(int(_forward(values.__getitem__, source, ids)[-1].argmax()))
    return ids[len(prompt) :]


def _forward(
    values: Callable[[str], np.ndarray], source: WeightSource, tokens: list[int]
) -> np.ndarray:
    config = source.config
    x = config.embedding_scale * values("embed")[tokens]  # (T, dim)
    for i in range(config.n_layers):
        names = [name for name in source.tensors if name.startswith(f"layers.{i}.")]
        layer = {name.rpartition(".")[2]: values(name) for name in names}
        attend = partial(_attention, kind=config.attention_of(i))
        if FAMILIES[config.arch].feed_forward is None:
            normed = norm(x, layer["norm1"], config)
            x = x + attend(layer, normed, config) + feed_forward(layer, normed, config)
            continue
        first = delta_net if config.is_delta(i) else attend if config.latent is None else _latent
        for half, before, after in (
            (first, "norm1", "post_norm1"), (feed_forward, "norm2", "post_norm2"),
        ):  # fmt: skip
            bias = layer.get(f"{before}_bias", 0.0)
            entered = norm(x, layer[before], config) + bias if before in layer else x
            added = half(layer, entered, config)
            added = norm(added, layer[after], config) if after in layer else added
            x = x + config.residual_scale * added
    head = values("embed" if config.is_tied else "wcls")
    bias, head_bias = (
        values(name)[0] if name in source.tensors else 0.0 for name in ("norm_bias", "wcls_bias")
    )
    last = norm(x, values("norm"), config) + bias
    logits = config.logit_scale * (last @ head.T) + head_bias
    return _capped(logits, config.final_softcap)


def _capped(x: np.ndarray, cap: float) -> np.ndarray:
    return cap * np.tanh(x / cap) if cap else x


def norm(x: np.ndarray, weight: np.ndarray, config: ModelConfig) -> np.ndarray:
    if config.has_layer_norm:
        x = x - x.mean(axis=-1, keepdims=True)
    mean_square = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + config.norm_epsilon) * weight.reshape(-1)


def _attention(
    layer: dict[str, np.ndarray], x: np.ndarray, config: ModelConfig, kind: LayerAttention
) -> np.ndarray:
    n_tokens, hd = len(x), config.head_dim
    q, k, v = (
        (x @ layer[w].T + layer.get(b, 0.0)).reshape(n_tokens, -1, hd)
        for w, b in (("wq", "bq"), ("wk", "bk"), ("wv", "bv"))
    )
    gates = np.zeros((n_tokens, 0))
    if config.has_output_gate:
        q, gates = (a.reshape(n_tokens, -1, hd) for a in (q[:, ::2], q[:, 1::2]))
    if config.has_qk_norm:
        q, k = _norm_heads(q, layer["q_norm"], config), _norm_heads(k, layer["k_norm"], config)
    if kind.is_rotated:
        if kind.has_local_rope:
            config = replace(
                config, rope_theta=config.local_rope_theta or config.rope_theta, rope_scaling=None,
                rope_factors=None,
            )  # fmt: skip
        q, k = _rotate(q, config), _rotate(k, config)
        if config.has_plain_qk_norm:
            q, k = (norm(a, np.ones(hd), config) for a in (q, k))
    growth = config.query_growth
    if growth is not None and (growth.is_everywhere or not kind.is_rotated):
        steps = (np.arange(n_tokens) + growth.first) // growth.length
        q = q * (1 + growth.scale * np.log1p(steps))[:, None, None]
    k, v = (np.repeat(a, config.group_size, axis=1) for a in (k, v))
    scale = hd**-0.5 if config.attention_scale is None else config.attention_scale
    scores = _capped(np.einsum("ihd,jhd->hij", q, k) * scale, config.attention_softcap)
    distance = np.arange(n_tokens)[:, None] - np.arange(n_tokens)
    hidden = (distance < 0) | (distance >= (kind.window or n_tokens))
    if kind.is_chunked and kind.window:
        chunks = np.arange(n_tokens) // kind.window
        hidden |= chunks[:, None] != chunks
    scores = np.where(hidden, -np.inf, scores)
    if "sinks" in layer:
        sinks = np.broadcast_to(layer["sinks"].reshape(-1, 1, 1), (len(scores), n_tokens, 1))
        scores = np.concatenate([scores, sinks], axis=-1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    weights = weights[..., :n_tokens]
    result = np.einsum("hij,jhd->ihd", weights, v)
    if config.has_output_gate:
        result = result / (1 + np.exp(-gates))
    return result.reshape(n_tokens, -1) @ layer["wo"].T + layer.get("bo", 0.0)


def _latent(layer: dict[str, np.ndarray], x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Latent attention with keys and values of every head written out (arXiv 2405.04434, equations
    37 to 47); pairs of neighbours are rotated."""
    sizes, n_tokens, n_heads = config.latent, len(x), config.n_heads
    assert sizes is not None
    if sizes.q_rank:
        q = norm(x @ layer["wq_a"].T, layer["q_a_norm"], config) @ layer["wq_b"].T
    else:
        q = x @ layer["wq"].T
    kept = x @ layer["wkv_a"].T
    latent = norm(kept[:, : sizes.kv_rank], layer["kv_a_norm"], config)
    key_up = layer["wk_b"].reshape(n_heads, sizes.kv_rank, sizes.nope_dim)
    k = np.einsum("tr,hrd->thd", latent, key_up)
    v = (latent @ layer["wv_b"].T).reshape(n_tokens, n_heads, sizes.value_dim)
    q, q_turned = np.split(q.reshape(n_tokens, n_heads, -1), [sizes.nope_dim], axis=-1)
    frequency, magnitude = rope_frequencies(config)
    turns = magnitude * np.exp(1j * np.arange(n_tokens)[:, None] * frequency)
    q_turned = _pairs(q_turned) * turns[:, None]
    k_turned = _pairs(kept[:, sizes.kv_rank :]) * turns
    scores = np.einsum("ihd,jhd->hij", q, k)
    scores = scores + np.einsum("ihd,jd->hij", q_turned, k_turned.conj()).real
    scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    scores = np.where(np.triu(np.ones((n_tokens, n_tokens), bool), 1), -np.inf, scores * scale)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(n_tokens, -1) @ layer["wo"].T


def _pairs(x: np.ndarray) -> np.ndarray:
    """Neighbours as complex numbers."""
    return x[..., ::2] + 1j * x[..., 1::2]


def delta_net(layer: dict[str, np.ndarray], x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The gated delta rule, token by token (arXiv 2412.06464, equation 10)."""
    sizes, n_tokens = config.delta, len(x)
    assert sizes is not None
    n_shared = sizes.n_value_heads // sizes.n_key_heads
    parts = []
    for name in "qkv":
        weights = layer[f"conv_{name}"]
        inputs = np.concatenate(
            [np.zeros((sizes.conv_len - 1, len(weights))), x @ layer[f"delta_{name}"].T]
        )
        taken = sum(inputs[i : i + n_tokens] * weights[:, i] for i in range(sizes.conv_len))
        parts.append((taken / (1 + np.exp(-taken))).reshape(n_tokens, -1, sizes.key_dim))
    q, k, v = parts
    v = v.reshape(n_tokens, sizes.n_value_heads, sizes.value_dim)
    q, k = (a / np.sqrt((a * a).sum(axis=-1, keepdims=True) + 1e-6) for a in (q, k))
    if "delta_gates" in layer:
        both = (x @ layer["delta_gates"].T).reshape(n_tokens, sizes.n_key_heads, 2, n_shared)
        beta, alpha = (both[:, :, i].reshape(n_tokens, -1) for i in range(2))
    else:
        beta, alpha = (x @ layer[name].T for name in ("delta_beta", "delta_alpha"))
    decay = np.exp(layer["delta_decay"] * np.logaddexp(0, alpha + layer["delta_shift"]))
    beta = 1 / (1 + np.exp(-beta))
    result = np.zeros(v.shape)
    for h in range(sizes.n_value_heads):
        bundle, place = divmod(h, sizes.bundle * n_shared)
        key_head = bundle * sizes.bundle + place % sizes.bundle
        state = np.zeros((sizes.key_dim, sizes.value_dim))
        for t in range(n_tokens):
            key = k[t, key_head]
            state = decay[t, h] * state
            state = state + np.outer(key, beta[t, h] * (v[t, h] - key @ state))
            result[t, h] = q[t, key_head] @ state / np.sqrt(sizes.key_dim)
    z = (x @ layer["delta_z"].T).reshape(result.shape)
    result = norm(result, layer["delta_norm"], config) * z / (1 + np.exp(-z))
    return result.reshape(n_tokens, -1) @ layer["delta_out"].T


def _norm_heads(x: np.ndarray, weight: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Norms x (T, heads, head_dim): heads that have their weights in common, or weights of their
    own, or all heads of a row as one."""
    if weight.size == config.head_dim:
        return norm(x, weight, config)
    if config.has_layer_norm:
        return norm(x, np.ones(config.head_dim), config) * weight.reshape(x.shape[1:])
    return norm(x.reshape(len(x), -1), weight, config).reshape(x.shape)


def _rotate(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """RoPE at positions 0 .. T - 1 of x (T, heads, head_dim): its first rotary_dim values."""
    frequency, magnitude = rope_frequencies(config)
    angle = np.arange(len(x))[:, None, None] * frequency  # (T, 1, rotary_dim / 2)
    cos, sin = magnitude * np.cos(angle), magnitude * np.sin(angle)
    rotated, rest = np.split(x, [config.rotary_dim], axis=-1)
    a, b = np.split(rotated, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def feed_forward(layer: dict[str, np.ndarray], x: np.ndarray, config: ModelConfig) -> np.ndarray:
    if "router" in layer:
        return np.array([_mixture(layer, row, config) for row in x])
    return _gated(x, *(layer[name] for name in ("w1", "w3", "w2")), config)


def _gated(
    x: np.ndarray, w1: np.ndarray, w3: np.ndarray, w2: np.ndarray, config: ModelConfig
) -> np.ndarray:
    return _GATES[config.gate](x @ w1.T, x @ w3.T) @ w2.T


def _silu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return gate / (1 + np.exp(-gate)) * up


def _clamped(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
    return gate / (1 + np.exp(-1.702 * gate)) * (up + 1)


def _gelu(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    return gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up


_GATES = {Gate.SILU: _silu, Gate.CLAMPED: _clamped, Gate.GELU: _gelu}


def _mixture(layer: dict[str, np.ndarray], row: np.ndarray, config: ModelConfig) -> np.ndarray:
    logits = layer["router"] @ row + layer.get("router_bias", np.zeros(1))[0]
    if config.gating is Gating.SIGMOID:
        chances = 1 / (1 + np.exp(-logits))
    else:
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
    scores = chances + layer.get("choice_bias", np.zeros(1)).reshape(-1)
    groups = np.split(scores, config.n_expert_groups)
    n_best = 2 if config.gating is Gating.SIGMOID else 1
    worth = np.array([np.sort(group)[-n_best:].sum() for group in groups])
    for group in np.argsort(-worth, kind="stable")[config.n_active_groups :]:
        groups[group][:] = -np.inf
    chosen = np.argsort(-scores, kind="stable")[: config.n_active_experts]
    if config.gating is Gating.SPARSE_MIXER:
        chances = _sparsely_mixed(logits, chosen)
    total = chances[chosen].sum() if config.has_expert_norm else 1.0
    out = np.zeros_like(row)
    for e in chosen:
        w1, w3, w2 = (
            np.split(layer[f"expert_{w}"], config.n_experts)[e] for w in ("w1", "w3", "w2")
        )
        b1, b3, b2 = (layer[f"expert_{b}"][e] if f"expert_{b}" in layer else 0.0 for b in
                      ("b1", "b3", "b2"))  # fmt: skip
        weight = config.expert_scale * chances[e] / total
        read, left = (weight * row, 1.0) if config.weighs_inputs else (row, weight)
        out += left * (_GATES[config.gate](w1 @ read + b1, w3 @ read + b3) @ w2.T + b2)
    if config.shared_hidden_dim:
        gate = layer["shared_router"][0] @ row if config.has_shared_gate else np.inf
        weight = 1 / (1 + np.exp(-gate))
        out += weight * _gated(row, *(layer[f"shared_{w}"] for w in ("w1", "w3", "w2")), config)
    return out


def _sparsely_mixed(logits: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The weights of the chosen experts at inference: each against those near it that are left
    (arXiv 2409.12136)."""
    chances, left = np.zeros_like(logits), logits.copy()
    for e in chosen:
        top = left[e]
        is_near = (top - left) / np.maximum(np.abs(logits), top) <= 2 * 0.01
        chances[e] = 1 / np.exp(left[is_near] - top).sum()
        left[e] = -np.inf
    return chances
