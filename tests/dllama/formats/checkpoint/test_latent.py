"""Folders of models with latent attention: what their config.json says, and matrices of heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.config import Gating
from dllama.errors import ModelFileError
from dllama.formats import open_model
from tests.checkpoints import write_checkpoint
from tests.toy_models import DEEPSEEK, V2_LITE


def test_matrices_of_heads_are_cut_from_the_joint_one(tmp_path: Path) -> None:
    """By rows that begin and end inside of heads, as by whole ones."""
    folder = write_checkpoint(tmp_path / "toy", arch="deepseek2", fields=DEEPSEEK)
    source = open_model(folder)
    for name, size in (("layers.1.wk_b", 128), ("layers.1.wv_b", 128)):
        whole = source.read(name)
        assert len(whole) == size
        for rows in (range(32, 96), range(5, 70), range(40, 41), range(128, 128)):
            assert np.array_equal(source.read(name, rows), whole[rows.start : rows.stop])
        cut = source.read(name, range(5, 70), range(8, 24))
        assert np.array_equal(cut, whole[5:70, 32:96])


def test_groups_of_experts_are_none_to_a_greedy_choice(tmp_path: Path) -> None:
    for choice, n_groups in (("greedy", 1), ("group_limited_greedy", 4)):
        folder = write_checkpoint(
            tmp_path / choice, arch="deepseek2", fields=DEEPSEEK | V2_LITE, topk_method=choice,
            model_type="deepseek_v2",
        )  # fmt: skip
        config = open_model(folder).config
        assert config.n_expert_groups == n_groups and config.gating is Gating.SOFTMAX


REFUSED: dict[str, dict[str, object]] = {
    "rope_interleave is 'False'": {"rope_interleave": False},
    "topk_method is 'random'": {"topk_method": "random"},
    "scoring_func is 'tanh'": {"scoring_func": "tanh"},
    "v_head_dim is 'None'": {"v_head_dim": None},
    "qk_nope_head_dim is '0'": {"qk_nope_head_dim": 0},
    "mscale is '0.5'": {
        "rope_parameters": {"type": "yarn", "factor": 4.0, "mscale": 0.5, "mscale_all_dim": 1.0}
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_kinds_of_latent_attention_that_are_not_computed_are_refused(
    tmp_path: Path, message: str
) -> None:
    folder = write_checkpoint(
        tmp_path / "toy", arch="deepseek2", fields=DEEPSEEK, **REFUSED[message]
    )
    with pytest.raises(ModelFileError, match=message):
        open_model(folder)
