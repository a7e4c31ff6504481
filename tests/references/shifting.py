"""The reference model with a cache that forgets and shifts, in float64: what a rolling context
has to compute. One token at a time."""

from __future__ import annotations

import numpy as np

from dllama.rope import rope_frequencies
from dllama.weight_source import WeightSource
from tests.references.forward import feed_forward, norm, tensor_values


class ShiftingReference:
    """`feed` tokens, `shift` when it is full."""

    def __init__(self, source: WeightSource) -> None:
        self._config = source.config
        self._values = {name: tensor_values(source, name) for name in source.tensors}
        shape = (source.config.n_layers, 0, source.config.n_kv_heads, source.config.head_dim)
        self._keys, self._cached = np.zeros(shape), np.zeros(shape)

    def __len__(self) -> int:
        return self._keys.shape[1]

    def feed(self, token: int) -> np.ndarray:
        """The logits (vocab_size,) behind one more token."""
        config, position = self._config, len(self)
        x = self._values["embed"][[token]]
        new_keys, new_values = [], []
        for i in range(config.n_layers):
            names = [n for n in self._values if n.startswith(f"layers.{i}.")]
            layer = {n.rpartition(".")[2]: self._values[n] for n in names}
            normed = norm(x, layer["norm1"], config)
            q, k, v = (
                (normed @ layer[w].T + layer.get(b, 0.0)).reshape(-1, config.head_dim)
                for w, b in (("wq", "bq"), ("wk", "bk"), ("wv", "bv"))
            )
            if config.has_qk_norm:
                q, k = norm(q, layer["q_norm"], config), norm(k, layer["k_norm"], config)
            magnitude = rope_frequencies(config)[1]
            q, k = (magnitude * self._turned(a, position) for a in (q, k))
            new_keys.append(k)
            new_values.append(v)
            keys = np.concatenate([self._keys[i], k[None]]).repeat(config.group_size, axis=1)
            values = np.concatenate([self._cached[i], v[None]]).repeat(config.group_size, axis=1)
            scores = np.einsum("hd,jhd->hj", q, keys) / np.sqrt(config.head_dim)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            x = x + np.einsum("hj,jhd->hd", weights, values).reshape(1, -1) @ layer["wo"].T
            x = x + feed_forward(layer, norm(x, layer["norm2"], config), config)
        self._keys = np.concatenate([self._keys, np.array(new_keys)[:, None]], axis=1)
        self._cached = np.concatenate([self._cached, np.array(new_values)[:, None]], axis=1)
        head = self._values["embed" if config.is_tied else "wcls"]
        logits: np.ndarray = (norm(x, self._values["norm"], config) @ head.T)[0]
        return logits

    def shift(self, n_keep: int, n_drop: int) -> None:
        """Forgets n_drop tokens behind the first n_keep; the others move up."""
        gone = np.s_[n_keep : n_keep + n_drop]
        self._keys, self._cached = (np.delete(a, gone, axis=1) for a in (self._keys, self._cached))
        self._keys[:, n_keep:] = self._turned(self._keys[:, n_keep:], -n_drop)

    def _turned(self, x: np.ndarray, by: int) -> np.ndarray:
        frequency, _ = rope_frequencies(self._config)
        a, b = np.split(x, 2, axis=-1)
        cos, sin = np.cos(by * frequency), np.sin(by * frequency)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
