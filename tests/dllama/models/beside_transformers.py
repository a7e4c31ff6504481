"""Our logits beside those of others: `transformers`', and what `compare` is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.formats import open_model
from dllama.kv_type import KvType
from tests.local_model import Ranks, make_step


def random_model(
    model_type: str, sizes: Mapping[str, object], tokens: Sequence[int]
) -> tuple[Any, np.ndarray]:
    """Returns a random model of theirs, and its logits after each of the tokens. Needs PyTorch."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model = model.eval().to(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the tame values of a fresh model
            parameter.copy_(
                torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
                if parameter.dim() > 1
                else 1 + 0.1 * torch.randn_like(parameter)
            )
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.3 * torch.randn_like(buffer))
        logits: np.ndarray = model(torch.tensor([list(tokens)])).logits[0].numpy()
    return model, logits


def compare(
    model: Path,
    expected: np.ndarray,
    tokens: Sequence[int],
    n_prompt: int,
    *,
    within: float = 1e-4,
) -> None:
    """Of a prompt and of single tokens, on one to three nodes; `within` is a part of the largest
    logit."""
    for n_ranks in (1, 2, 3):
        group = ThreadGroup(n_ranks)
        comms = [ThreadCollective(group, rank) for rank in range(n_ranks)]
        ranks = Ranks(open_model(model), [1.0] * n_ranks, comms, kv_type=KvType.F32)
        rows = ranks.run(make_step([(0, list(tokens[:n_prompt]), 0)], every_row=True))
        rows += [
            ranks.run(make_step([(0, [token], at)]))[0]
            for at, token in enumerate(tokens[n_prompt:], start=n_prompt)
        ]
        ranks.close()
        got = np.array([row.logits for row in rows])
        np.testing.assert_allclose(got, expected, atol=within * np.abs(expected).max())
