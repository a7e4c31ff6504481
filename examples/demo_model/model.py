"""The model in PyTorch, for training only: the Llama architecture that dllama runs, with our names
for its tensors, and rotary pairs (j, j + head_dim / 2)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody calls it F

from dllama.config import ModelConfig

MIDDLE = 4  # layers after which the topic of a question should be known
SHORT = 256  # tokens; up to here plain matrix products beat the flash kernel on a CPU


def demo_config(vocab_size: int) -> ModelConfig:
    """The shape of dllama-demo: 6.6 million parameters, 4 KV heads to shard over."""
    return ModelConfig(
        arch="llama",
        name="dllama-demo",
        dim=256,
        hidden_dim=768,
        n_layers=7,
        n_heads=8,
        n_kv_heads=4,
        head_dim=32,
        vocab_size=vocab_size,
        max_seq_len=2048,
        norm_epsilon=1e-5,
        rope_theta=10000.0,
        is_tied=True,
    )


class Layer(nn.Module):
    """One transformer block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, hidden, n_qkv = config.dim, config.hidden_dim, config.q_dim + 2 * config.kv_dim
        self.norm1 = nn.RMSNorm(dim, config.norm_epsilon)
        self.wqkv = nn.Linear(dim, n_qkv, bias=False)
        self.wo = nn.Linear(config.q_dim, dim, bias=False)
        self.norm2 = nn.RMSNorm(dim, config.norm_epsilon)
        self.w13 = nn.Linear(dim, 2 * hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: torch.Tensor, rope: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x + self.wo(self.attention(self.norm1(x), rope, mask))
        gate, up = self.w13(self.norm2(x)).chunk(2, -1)
        out: torch.Tensor = x + self.w2(F.silu(gate) * up)
        return out

    def attention(self, x: torch.Tensor, rope: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x: (B, T, dim), rope: (2, T, head_dim / 2), mask: (T, T); returns (B, T, q_dim)."""
        c, (batch, n, _) = self.config, x.shape
        q, k, v = self.wqkv(x).split([c.q_dim, c.kv_dim, c.kv_dim], -1)
        q = rotate(q.view(batch, n, c.n_heads, c.head_dim).transpose(1, 2), rope)
        k = rotate(k.view(batch, n, c.n_kv_heads, c.head_dim).transpose(1, 2), rope)
        v = v.view(batch, n, c.n_kv_heads, c.head_dim).transpose(1, 2)
        if n > SHORT:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return out.transpose(1, 2).reshape(batch, n, c.q_dim)
        # The heads of a group lie below each other, so that one product serves them all.
        rows = q.reshape(batch, c.n_kv_heads, c.group_size * n, c.head_dim)
        scores = (rows * c.head_dim**-0.5) @ k.transpose(-1, -2)
        scores = scores.view(batch, c.n_kv_heads, c.group_size, n, n) + mask
        shares = scores.softmax(-1, dtype=torch.float32).to(v.dtype)
        shares = shares.view(batch, c.n_kv_heads, c.group_size * n, n)
        mixed: torch.Tensor = shares @ v
        out = mixed.view(batch, c.n_heads, n, c.head_dim)
        return out.transpose(1, 2).reshape(batch, n, c.q_dim)


class Model(nn.Module):
    """Token ids (B, T) to the final states, and to those of a middle layer."""

    rope: torch.Tensor
    mask: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.dim, config.norm_epsilon)
        self.register_buffer("rope", rope_table(config), persistent=False)
        mask = torch.full((SHORT, SHORT), float("-inf")).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        self.reset()

    def reset(self) -> None:
        """Fresh weights; what writes to the residual stream starts smaller, as in GPT-2."""
        for name, weight in self.named_parameters():
            if weight.ndim < 2:
                continue
            is_output = name.endswith(("wo.weight", "w2.weight"))
            std = 0.02 / math.sqrt(2 * self.config.n_layers) if is_output else 0.02
            nn.init.normal_(weight, 0.0, std)

    def compile_layers(self) -> None:
        """For any batch; the weights keep their names."""
        for layer in self.layers:
            layer.compile(dynamic=True)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both (B, T, dim): the final states, normed, and those after MIDDLE layers."""
        n = tokens.shape[1]
        x = self.embed(tokens)
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype
        rope, mask = self.rope[:, :n].to(dtype), self.mask[:n, :n].to(dtype)
        middle = x
        for i, layer in enumerate(self.layers, 1):
            x = layer(x, rope, mask)
            middle = x if i == MIDDLE else middle
        return self.norm(x), middle

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return F.linear(states, self.embed.weight)

    def losses(self, states: torch.Tensor, at: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of each `wanted` token at the flat positions `at` of final states
        (B, T, dim), float32 (n,); other positions cost no head."""
        logits = self.logits(states.flatten(0, 1)[at]).float()
        return F.cross_entropy(logits, wanted, reduction="none")


def rope_table(config: ModelConfig) -> torch.Tensor:
    """Cosines and sines (2, max_seq_len, head_dim / 2)."""
    pairs = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    positions = torch.arange(config.max_seq_len, dtype=torch.float64)
    angles = torch.outer(positions, config.rope_theta**-pairs)
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    cos, sin = rope
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """The weights by dllama's names, as float32 (rows, cols); vectors have one row."""
    c = model.config
    found = {"embed": model.embed.weight, "norm": model.norm.weight[None]}
    for i, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        wq, wk, wv = torch.split(layer.wqkv.weight, [c.q_dim, c.kv_dim, c.kv_dim])
        w1, w3 = layer.w13.weight.chunk(2)
        found |= {
            f"layers.{i}.norm1": layer.norm1.weight[None], f"layers.{i}.wq": wq,
            f"layers.{i}.wk": wk, f"layers.{i}.wv": wv, f"layers.{i}.wo": layer.wo.weight,
            f"layers.{i}.norm2": layer.norm2.weight[None], f"layers.{i}.w1": w1,
            f"layers.{i}.w2": layer.w2.weight, f"layers.{i}.w3": w3,
        }  # fmt: skip
    return {name: tensor.detach().float() for name, tensor in found.items()}
