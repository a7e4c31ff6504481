"""Which layers have a sliding window, as files of both kinds say it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.config import LayerAttention, ModelConfig
from dllama.errors import ModelFileError
from dllama.formats import open_model
from tests.checkpoints import write_checkpoint
from tests.dllama.formats.crafted import rewrite
from tests.toy_models import write_toy

FULL, NOPE = LayerAttention(), LayerAttention(is_rotated=False)
N_LAYERS = 7


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("toys")
    archs = ("llama", "exaone4", "gemma2", "gemma3")
    return {
        arch: write_toy(folder / arch, arch=arch, n_layers=N_LAYERS, hidden_dim=32)
        for arch in archs
    }


def config_of(toy: Path, to: Path, **keys: object) -> ModelConfig:
    arch = toy.name
    named = {f"{arch}.{key.replace('__', '.')}": value for key, value in keys.items()}
    return open_model(rewrite(toy, to, metadata=named)).config


def windows(config: ModelConfig) -> list[int | None]:
    return [config.attention_of(i).window for i in range(config.n_layers)]


def test_a_window_of_all_layers_leaves_the_context_as_it_is(
    toys: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(toys["llama"], tmp_path / "a", attention__sliding_window=64)
    assert windows(config) == [64] * N_LAYERS and config.max_seq_len == 256
    none = config_of(toys["llama"], tmp_path / "b", attention__sliding_window=0)
    assert none.attention_layers == ()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (3, [9, 9, None, 9, 9, None, 9]),
        (1, [None] * 7),
        (0, [9] * 7),
        (np.array([1, 0, 1, 1, 0, 0, 1], np.bool_), [9, None, 9, 9, None, None, 9]),
    ],
)
def test_a_file_may_say_the_pattern(
    toys: dict[str, Path], tmp_path: Path, pattern: object, expected: list[int | None]
) -> None:
    keys = {"attention__sliding_window": 9, "attention__sliding_window_pattern": pattern}
    assert windows(config_of(toys["exaone4"], tmp_path / "a", **keys)) == expected


def test_a_pattern_of_other_length_is_refused(toys: dict[str, Path], tmp_path: Path) -> None:
    keys = {
        "attention__sliding_window": 9,
        "attention__sliding_window_pattern": np.array([True, False]),
    }
    with pytest.raises(ModelFileError, match="2 entries for 7 layers"):
        config_of(toys["exaone4"], tmp_path / "a", **keys)


def test_families_have_patterns_of_their_own(toys: dict[str, Path], tmp_path: Path) -> None:
    keys = {"attention__sliding_window": 9}
    exaone = config_of(toys["exaone4"], tmp_path / "a", **keys)
    assert exaone.attention_layers == (*(LayerAttention(9),) * 3, NOPE) + (LayerAttention(9),) * 3
    assert open_model(toys["exaone4"]).config.attention_layers == ()
    gemma2 = config_of(toys["gemma2"], tmp_path / "b", **keys)
    assert gemma2.attention_layers == (LayerAttention(9), FULL) * 3 + (LayerAttention(9),)
    gemma3 = config_of(toys["gemma3"], tmp_path / "c", **keys)
    local = LayerAttention(9, has_local_rope=True)
    assert gemma3.attention_layers == (*(local,) * 5, FULL, local)
    assert gemma3.local_rope_theta == 10000.0


def test_gemma_has_scales_and_caps_where_its_file_says_none(
    toys: dict[str, Path], tmp_path: Path
) -> None:
    unsaid = ("attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window")
    path = rewrite(toys["gemma2"], tmp_path / "a", drop=tuple(f"gemma2.{key}" for key in unsaid))
    config = open_model(path).config
    assert (config.attention_softcap, config.final_softcap) == (50.0, 30.0)
    assert config.embedding_scale == 8.0 and config.attention_scale is None
    assert windows(config) == [4096, None] * 3 + [4096]
    large = write_toy(tmp_path / "27b", arch="gemma2", n_layers=46, dim=32, hidden_dim=32,
                      head_dim=16)  # fmt: skip
    assert open_model(large).config.attention_scale == pytest.approx(8**-0.5)


SAID: dict[str, tuple[dict[str, object], list[int | None]]] = {
    "nothing": ({}, [None] * 4),
    "window": ({"sliding_window": 64}, [64] * 4),
    "null": ({"sliding_window": None}, [None] * 4),
    "unused": ({"sliding_window": 64, "use_sliding_window": False}, [None] * 4),
    "full": ({"sliding_window": 64, "layer_types": ["full_attention"] * 4}, [None] * 4),
    "kinds": (
        {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"] * 2},
        [None, 64] * 2,
    ),
    "period": ({"sliding_window": 64, "sliding_window_pattern": 2}, [64, None] * 2),
    "letters": ({"sliding_window": 64, "sliding_window_pattern": "GLL"}, [None, 64, 64, None]),
    "later layers": (
        {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3},
        [None, None, None, 64],
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_a_folder_says_it_in_many_ways(tmp_path: Path, name: str) -> None:
    said, expected = SAID[name]
    folder = write_checkpoint(
        tmp_path / "toy", model_type="mistral", n_layers=4, hidden_dim=32, **said
    )
    assert windows(open_model(folder).config) == expected


@pytest.mark.parametrize(
    "said",
    [
        {"sliding_window": 0},
        {"sliding_window": "64"},
        {"sliding_window": 64, "sliding_window_pattern": "LXG"},
        {"sliding_window": 64, "layer_types": ["sliding_attention"] * 3},
    ],
)
def test_windows_that_cannot_be_are_refused(tmp_path: Path, said: dict[str, object]) -> None:
    folder = write_checkpoint(
        tmp_path / "toy", model_type="mistral", n_layers=4, hidden_dim=32, **said
    )
    with pytest.raises(ModelFileError, match="sliding_window"):
        open_model(folder)


def test_a_folder_of_smollm3_tells_its_layers_without_positions(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "a", arch="smollm3", n_layers=4, hidden_dim=32, no_rope_layers=[1, 1, 1, 0]
    )
    assert open_model(folder).config.attention_layers == (FULL, FULL, FULL, NOPE)
    other = write_checkpoint(
        tmp_path / "b", arch="smollm3", n_layers=4, hidden_dim=32, no_rope_layers=[1, 0, 1, 0]
    )
    with pytest.raises(ModelFileError, match="no_rope_layers"):
        open_model(other)
